--- Is a value from outside the number that is expected?
-- @module octet.number
local M = {}

--- A number from `least` to `most`; NaN is none.
-- @param x
-- @tparam[opt=-math.huge] number least
-- @tparam[opt=math.huge] number most
-- @treturn boolean
function M.within(x, least, most)
  return type(x) == "number" and x >= (least or -math.huge) and x <= (most or math.huge)
end

--- A number that is neither infinite nor NaN.
-- @param x
-- @treturn boolean
function M.is_finite(x) return type(x) == "number" and x - x == 0 end

--- A number from 0 to below 1, as a share or a decay is.
-- @param x
-- @treturn boolean
function M.is_share(x) return M.within(x, 0, 1) and x < 1 end

--- A whole number from `least` to `most`, 2^53 where nothing is said: up to there each is exact.
-- @param x
-- @tparam number least
-- @tparam[opt=2^53] number most
-- @treturn boolean
function M.is_whole(x, least, most)
  return M.within(x, least, most or 2 ^ 53) and x == math.floor(x)
end

return M
