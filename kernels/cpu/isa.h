/* isa.h - one source, two instruction sets: names and vector width.
 *
 * The build compiles each kernel file once with OCT_ISA=avx2 and once with OCT_ISA=avx512;
 * KERNEL(add) is then oct_add_avx2 or oct_add_avx512, and kernels/cpu/table.c collects them. */
#ifndef OCT_ISA_H
#define OCT_ISA_H

#ifndef OCT_ISA
#define OCT_ISA avx512             /* for an editor's parser; the build always says */
#define OCT_ISA_avx512 1
#endif
#define OCT_JOIN_(name, isa) oct_##name##_##isa
#define OCT_JOIN(name, isa) OCT_JOIN_(name, isa)
#define KERNEL(name) OCT_JOIN(name, OCT_ISA)

#if defined(OCT_ISA_avx512)
enum { LANES = 16 };               /* f32 lanes of a vector */
#else
enum { LANES = 8 };
#endif

#endif
