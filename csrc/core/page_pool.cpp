#include "core/page_pool.h"

namespace tl {

// Small pages, unless one KV page fills whole huge pages: committing must follow use.
PagePool::PagePool(KvLayout layout, int num_pages)
    : layout_(layout),
      num_pages_(num_pages),
      memory_(layout.page_bytes() * size_t(num_pages),
              layout.page_bytes() % kHugePageBytes == 0 ? PageSize::kHuge : PageSize::kSmall) {}

void PagePool::release(int page) { memory_.decommit(size_t(page) * page_bytes(), page_bytes()); }

}  // namespace tl
