// Gathers the kernels of one level into its table.
#include "cpu/level.h"

#define TL_STRING_(x) #x
#define TL_STRING(x) TL_STRING_(x)

namespace tl::TL_LEVEL {

const Kernels& kernels() {
    static const Kernels table = [] {
        Kernels k{};
        k.level = TL_STRING(TL_LEVEL);
        for (int p = 0; p < kNumPrecisions; p++) k.formats[p] = formats(Precision(p), k.num_formats);
        k.fast = fast_kernels(k.num_fast);
        k.convert_rows = convert_rows;
        k.rms_norm_rows = rms_norm_rows;
        k.layer_norm_rows = layer_norm_rows;
        k.glu_rows = glu_rows;
        k.map_rows = map_rows;
        k.add = add;
        k.combine = combine;
        k.causal_conv = causal_conv;
        k.gated_delta = gated_delta;
        k.gated_delta_scratch_floats = gated_delta_scratch_floats;
        k.rope_row = rope_row;
        k.kv_write = kv_write;
        k.attention = attention;
        k.attention_merge = attention_merge;
        k.attention_scratch_bytes = attention_scratch_bytes;
        k.read_bytes = read_bytes;
        k.run_dots = run_dots;
        return k;
    }();
    return table;
}

}  // namespace tl::TL_LEVEL
