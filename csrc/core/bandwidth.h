// Measures how fast this machine reads memory: the roof of decoding.
#pragma once

#include <cstddef>

namespace tl {

// Bytes per second that num_threads read together from num_bytes of huge-page memory; best of several passes.
double measure_read_bandwidth(int num_threads, size_t num_bytes);

}  // namespace tl
