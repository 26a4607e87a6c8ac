// Measures how fast this machine multiplies and adds: the roof of prefill.
#pragma once

#include "cpu/kernels.h"

namespace tl {

// Operations per second (two per multiply-add) of num_threads together, in registers; best of several passes.
double measure_dot_peak(DotKind kind, int num_threads);

}  // namespace tl
