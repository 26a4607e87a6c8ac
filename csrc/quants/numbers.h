// F64, I8, I16, I32, I64: numbers that no model's matrices are stored in by choice. They become F32 when they are packed, and
// everything else is that of F32 (floats.h).
#pragma once

#include "quants/floats.h"

namespace tl::TL_LEVEL {

template <class Number, int kTypeNumber> struct Converted {
    static constexpr int kType = kTypeNumber;
    static constexpr size_t kBytes = sizeof(Number);

    static void decode_row(const uint8_t* row, int n, float* out) {
        for (int i = 0; i < n; i++) {
            Number value;
            std::memcpy(&value, row + size_t(i) * kBytes, kBytes);
            out[i] = float(value);
        }
    }

    static void pack(const uint8_t* const* rows, int num_inputs, uint8_t* tile) {
        float* out = (float*)tile;
        for (int r = 0; r < kTileRows; r++) {
            for (int k = 0; k < num_inputs; k++) {
                float& to = out[size_t(k) * kTileRows + size_t(r)];
                to = 0;
                if (rows[r]) decode_row(rows[r] + size_t(k) * kBytes, 1, &to);
            }
        }
    }
};

using Float64 = Converted<double, 28>;
using Int8 = Converted<int8_t, 24>;
using Int16 = Converted<int16_t, 25>;
using Int32 = Converted<int32_t, 26>;
using Int64 = Converted<int64_t, 27>;

}  // namespace tl::TL_LEVEL
