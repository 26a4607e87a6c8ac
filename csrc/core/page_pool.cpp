#include "core/page_pool.h"

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

}  // namespace tl
