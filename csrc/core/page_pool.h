// Memory of the paged KV cache: address space for all pages, committed as they are used.
#pragma once

#include "core/kv_layout.h"
#include "core/memory.h"

namespace tl {

class PagePool {
 public:
    PagePool(KvLayout layout, int num_pages);

    const KvLayout& layout() const { return layout_; }
    int num_pages() const { return num_pages_; }
    size_t page_bytes() const { return layout_.page_bytes(); }

    // Address of page 0's part for a layer; page p is page_bytes() * p further on.
    uint8_t* layer(int layer) const { return memory_.data() + size_t(layer) * layout_.layer_bytes(); }

    // Gives a page's memory back to the system.
    void release(int page);

 private:
    KvLayout layout_;
    int num_pages_;
    MappedBuffer memory_;
};

}  // namespace tl
