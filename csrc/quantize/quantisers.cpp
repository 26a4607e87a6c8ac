// The quantisers of one level by GGUF type number.
#include "quantize/iq3_s.h"
#include "quantize/k_affine.h"
#include "quantize/k_scaled.h"
#include "quantize/simple.h"

namespace tl::TL_LEVEL {
namespace {

constexpr Quantiser kQuantisers[] = {
    {0, 1, 4, quantise_f32},
    {1, 1, 2, quantise_f16},
    {2, 32, 18, quantise_symmetric<15>},
    {3, 32, 20, quantise_with_minimum<15>},
    {6, 32, 22, quantise_symmetric<31>},
    {7, 32, 24, quantise_with_minimum<31>},
    {8, 32, 34, quantise_q8_0},
    {10, 256, 84, quantise_q2_k},
    {11, 256, 110, quantise_q3_k},
    {12, 256, 144, quantise_affine32<15>},
    {13, 256, 176, quantise_affine32<31>},
    {14, 256, 210, quantise_q6_k},
    {20, 32, 18, quantise_iq4_nl},
    {21, 256, 110, quantise_iq3_s},
    {23, 256, 136, quantise_iq4_xs},
    {30, 1, 2, quantise_bf16},
    {39, 32, 17, quantise_mxfp4},
};

}  // namespace

const Quantiser* quantiser_of(int gguf_type) {
    for (const Quantiser& quantiser : kQuantisers) {
        if (quantiser.gguf_type == gguf_type) return &quantiser;
    }
    return nullptr;
}

}  // namespace tl::TL_LEVEL
