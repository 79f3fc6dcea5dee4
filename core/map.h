/* map.h - the quantization maps of the optimizers' state. */
#ifndef OCT_CORE_MAP_H
#define OCT_CORE_MAP_H
#include "kernels/map.h"

/* The dynamic tree map (Dettmers et al. 2022, section 1.3), built once and kept. For i = 0 .. 6,
 * [0.1, 1] is cut into n bins (n = 2^i signed, 2^(i + 1) unsigned), whose midpoints times 10^(i -
 * 6) are values; with the negatives if signed, one 0 and one 1.0 they are 256. Never fails. */
const oct_map *oct_map_dynamic(int is_signed);

/* Complete a map of which value and is_signed are set: everything else follows from them. Values
 * ascend; the largest is 1; 0 is among them, at code 0 or at OCT_SIGNED_ZERO; a signed map's
 * negative values mirror its positive ones but for the largest. -1 with the error set where the
 * values have more segments than the kernels' tables hold. */
int oct_map_complete(oct_map *map);

#endif
