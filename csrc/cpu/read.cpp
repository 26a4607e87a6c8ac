// Reads memory and does next to nothing with it: the pure-read roof that decoding is compared with.
#include "cpu/level.h"

namespace tl::TL_LEVEL {

uint64_t read_bytes(const uint8_t* p, size_t num_bytes) {
    Regs<Bytes, 4> sums;
    each(sums, [](int, Bytes& v) { v = bset1(0); });
    for (size_t i = 0; i + 256 <= num_bytes; i += 256) {
        each(sums, [&](int j, Bytes& v) { v = v | bload(p + i + 64 * size_t(j)); });
    }
    uint64_t words[8], result = 0;
    each(sums, [&](int, Bytes& v) {
        bstore(words, v);
        for (uint64_t word : words) result ^= word;
    });
    return result;
}

}  // namespace tl::TL_LEVEL
