// The constant table that ends each ISA file.
#pragma once

#include "cpu/pool/adaptive.h"
#include "cpu/pool/backward.h"
#include "cpu/pool/global.h"
#include "cpu/pool/lane.h"
#include "cpu/pool/plane.h"
#include "cpu/pool/power.h"

#define FASTCONV_POOL_ROW(isa, op, family, type, T, kernel)                                                       \
  PoolKernel {                                                                                                    \
    {op, op "_" #family "_" #type "_" #isa, Isa::isa, Dtype::type, 1, Reg<T>::width}, PoolFamily::family, &kernel \
  }

#define FASTCONV_POOL_DTYPE(isa, type, T)                                                                        \
  FASTCONV_POOL_ROW(isa, "max_pool", plane, type, T, (plane_pool<T, Max<T>>)),                                   \
      FASTCONV_POOL_ROW(isa, "max_pool", lane, type, T, (lane_pool<T, Max<T>>)),                                 \
      FASTCONV_POOL_ROW(isa, "min_pool", plane, type, T, (plane_pool<T, Min<T>>)),                               \
      FASTCONV_POOL_ROW(isa, "min_pool", lane, type, T, (lane_pool<T, Min<T>>)),                                 \
      FASTCONV_POOL_ROW(isa, "avg_pool", plane, type, T, (plane_pool<T, Sum<T>>)),                               \
      FASTCONV_POOL_ROW(isa, "avg_pool", lane, type, T, (lane_pool<T, Sum<T>>)),                                 \
      FASTCONV_POOL_ROW(isa, "avg_pool_backward", plane, type, T, (plane_window_backward<T, PlainGradient<T>>)), \
      FASTCONV_POOL_ROW(isa, "avg_pool_backward", lane, type, T, (lane_window_backward<T, PlainGradient<T>>)),   \
      FASTCONV_POOL_ROW(isa, "global_avg_pool", plane, type, T, (plane_global_avg<T>)),                          \
      FASTCONV_POOL_ROW(isa, "global_avg_pool", lane, type, T, (lane_global_avg<T>)),                            \
      FASTCONV_POOL_ROW(isa, "global_max_pool", plane, type, T, (plane_global_max<T>)),                          \
      FASTCONV_POOL_ROW(isa, "global_max_pool", lane, type, T, (lane_pool<T, Max<T>>)),                          \
      FASTCONV_POOL_ROW(isa, "square_pool", plane, type, T, (plane_pool<T, RootMeanSquare<T>>)),                 \
      FASTCONV_POOL_ROW(isa, "square_pool", lane, type, T, (lane_pool<T, RootMeanSquare<T>>)),                   \
      FASTCONV_POOL_ROW(isa, "power_pool", plane, type, T, (plane_pool<T, RootMeanPower<T>>)),                   \
      FASTCONV_POOL_ROW(isa, "power_pool", lane, type, T, (lane_pool<T, RootMeanPower<T>>)),                     \
      FASTCONV_POOL_ROW(isa, "square_pool_backward", plane, type, T,                                             \
                        (plane_window_backward<T, PowerGradient<T, SquareSlope<T>>>)),                           \
      FASTCONV_POOL_ROW(isa, "square_pool_backward", lane, type, T,                                              \
                        (lane_window_backward<T, PowerGradient<T, SquareSlope<T>>>)),                            \
      FASTCONV_POOL_ROW(isa, "power_pool_backward", plane, type, T,                                              \
                        (plane_window_backward<T, PowerGradient<T, PowerSlope<T>>>)),                            \
      FASTCONV_POOL_ROW(isa, "power_pool_backward", lane, type, T,                                               \
                        (lane_window_backward<T, PowerGradient<T, PowerSlope<T>>>)),                             \
      FASTCONV_POOL_ROW(isa, "adaptive_avg_pool", plane, type, T, (plane_adaptive<T, Sum<T>>)),                  \
      FASTCONV_POOL_ROW(isa, "adaptive_avg_pool", lane, type, T, (lane_adaptive<T, Sum<T>>)),                    \
      FASTCONV_POOL_ROW(isa, "adaptive_max_pool", plane, type, T, (plane_adaptive<T, Max<T>>)),                  \
      FASTCONV_POOL_ROW(isa, "adaptive_max_pool", lane, type, T, (lane_adaptive<T, Max<T>>)),                    \
      FASTCONV_POOL_ROW(isa, "adaptive_avg_pool_backward", plane, type, T, (plane_adaptive_backward<T>)),        \
      FASTCONV_POOL_ROW(isa, "adaptive_avg_pool_backward", lane, type, T,                                        \
                        (lane_window_backward<T, PlainGradient<T>, BinCovers<T>>))

#define FASTCONV_POOL_TABLE(isa)                                                                        \
  namespace fastconv {                                                                                  \
  const PoolKernel pool_kernels_##isa[] = {FASTCONV_POOL_DTYPE(isa, f32, float),                        \
                                           FASTCONV_POOL_DTYPE(isa, f64, double)};                      \
  const int pool_kernel_count_##isa = static_cast<int>(sizeof pool_kernels_##isa / sizeof(PoolKernel)); \
  }
