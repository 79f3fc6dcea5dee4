/* map.h - the quantization maps of the optimizers' state. */
#ifndef OCT_CORE_MAP_H
#define OCT_CORE_MAP_H
#include "kernels/map.h"

/* One more owner of a map; oct_map_free gives it back. */
const oct_map *oct_map_retain(const oct_map *map);

/* See whether codes can be found by lines, and make them (core/map_lines.c). The values are set. */
void oct_map_find_lines(oct_map *map);

#endif
