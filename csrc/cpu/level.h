// What the translation units of one level offer to that level's table (table.cpp).
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace tl::TL_LEVEL {

void convert_rows(const float* x, size_t x_stride, int num_rows, ActLayout layout, uint8_t* out);
void rms_norm_rows(const float* x, size_t x_stride, const float* weight, float eps, int num_rows, ActLayout layout,
                   uint8_t* out);
void layer_norm_rows(const float* x, size_t x_stride, const float* weight, const float* bias, float eps, int num_rows,
                     ActLayout layout, uint8_t* out);
void glu_rows(GluActivation activation, const float* gate, const float* up, size_t stride, int num_rows,
              ActLayout layout, uint8_t* out);
void map_rows(MapFunction function, float parameter, const float* x, size_t stride, int num_rows, ActLayout layout,
              uint8_t* out);
void add(const float* a, const float* b, float* out, size_t num_elements);
void combine(const float* const* rows, const float* weights, int num_rows, bool accumulate, float* out,
             int num_elements);
void causal_conv(const CausalConvArgs& args);
void gated_delta(const GatedDeltaArgs& args);
size_t gated_delta_scratch_floats(int key_dim);
void rope_row(float* row, int num_heads, int head_dim, RopeLayout layout, int pairs, const float* cos,
              const float* sin);
void kv_write(const float* k, const float* v, const KvLayout& layout, int slot, int head_begin, int head_end,
              uint8_t* page);
void attention(const AttentionArgs& args);
void attention_merge(const AttentionArgs& args);
size_t attention_scratch_bytes(const KvLayout& layout, int group);
uint64_t read_bytes(const uint8_t* p, size_t num_bytes);
double run_dots(DotKind kind, int num_rounds);
const FormatKernels* formats(Precision precision, int& count);
const FastKernels* fast_kernels(int& count);

}  // namespace tl::TL_LEVEL
