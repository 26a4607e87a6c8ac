// Memory of the paged KV cache: address space for all pages, committed as they are used.
#pragma once

#include <vector>

#include "core/kv_layout.h"
#include "core/memory.h"

namespace tl {

class PagePool {
 public:
    // layers: how each layer's part of a page is laid out; at least one.
    PagePool(std::vector<KvLayout> layers, int num_pages);
    // Bytes of a page that holds these layers one after another.
    static size_t page_bytes(const std::vector<KvLayout>& layers);

    int num_layers() const { return int(layers_.size()); }
    const KvLayout& layout(int layer) const { return layers_[layer]; }
    int num_pages() const { return num_pages_; }
    size_t page_bytes() const { return page_bytes_; }

    // Address of page 0's part for a layer; page p is page_bytes() * p further on.
    uint8_t* layer(int layer) const { return memory_.data() + offsets_[layer]; }

    // Gives a page's memory back to the system.
    void release(int page);

    // Copies all of a page out or in; content is page_bytes() long. Throws std::invalid_argument for a page out of range.
    void read(int page, uint8_t* content) const;
    void write(int page, const uint8_t* content);

    // Copies keys and values of a sequence, whose page table is given, from slots to slots, one after another. Throws
    // std::invalid_argument for a page or a slot out of range.
    void copy_slots(const int32_t* page_ids, size_t num_page_ids, const int32_t* from, const int32_t* to, size_t count);

 private:
    uint8_t* page_at(int page) const;

    std::vector<KvLayout> layers_;
    std::vector<size_t> offsets_;  // of each layer in a page
    size_t page_bytes_;
    int num_pages_;
    MappedBuffer memory_;
};

}  // namespace tl
