#include "core/page_pool.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "core/kv_copy.h"

namespace tl {

size_t PagePool::page_bytes(const std::vector<KvLayout>& layers) {
    size_t bytes = 0;
    for (const KvLayout& layer : layers) bytes += layer.layer_bytes();
    return align_up(bytes, 4096);
}

// Small pages, unless one KV page fills whole huge pages: committing must follow use.
PagePool::PagePool(std::vector<KvLayout> layers, int num_pages)
    : layers_(std::move(layers)),
      page_bytes_(page_bytes(layers_)),
      num_pages_(num_pages),
      memory_(page_bytes_ * size_t(num_pages), page_bytes_ % kHugePageBytes == 0 ? PageSize::kHuge : PageSize::kSmall) {
    size_t offset = 0;
    for (const KvLayout& layer : layers_) {
        offsets_.push_back(offset);
        offset += layer.layer_bytes();
    }
}

void PagePool::release(int page) { memory_.decommit(size_t(page) * page_bytes_, page_bytes_); }

uint8_t* PagePool::page_at(int page) const {
    if (page < 0 || page >= num_pages_) throw std::invalid_argument("page id out of range");
    return memory_.data() + size_t(page) * page_bytes_;
}

void PagePool::read(int page, uint8_t* content) const { std::memcpy(content, page_at(page), page_bytes_); }

void PagePool::write(int page, const uint8_t* content) { std::memcpy(page_at(page), content, page_bytes_); }

void PagePool::copy_slots(const int32_t* page_ids, size_t num_page_ids, const int32_t* from, const int32_t* to,
                          size_t count) {
    for (size_t i = 0; i < num_page_ids; i++) {
        if (page_ids[i] < 0 || page_ids[i] >= num_pages_) throw std::invalid_argument("page id out of range");
    }
    for (size_t i = 0; i < count; i++) {
        for (const int32_t slot : {from[i], to[i]}) {
            if (slot < 0 || size_t(slot) >= num_page_ids * kPageTokens) {
                throw std::invalid_argument("slot " + std::to_string(slot) + " of a sequence with " +
                                            std::to_string(num_page_ids) + " pages");
            }
        }
    }
    for (int l = 0; l < num_layers(); l++) {
        const KvLayout& layout = layers_[l];
        const auto page = [&](int slot) { return layer(l) + size_t(page_ids[slot / kPageTokens]) * page_bytes_; };
        for (size_t i = 0; i < count; i++) {
            const int a = from[i] % kPageTokens, b = to[i] % kPageTokens;
            for (int h = 0; h < layout.num_kv_heads; h++) {
                copy_key(layout, page(from[i]) + layout.k_offset(h), a, page(to[i]) + layout.k_offset(h), b);
                copy_value(layout, page(from[i]) + layout.v_offset(h), a, page(to[i]) + layout.v_offset(h), b);
            }
        }
    }
}

}  // namespace tl
