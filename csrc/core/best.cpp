#include "core/best.h"

#include <cmath>

namespace tl {
namespace {

constexpr int kLook = 16;  // values looked at together: nearly none are large enough

bool is_better(float a, int32_t a_id, float b, int32_t b_id) {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && (!std::isnan(b) || a_id < b_id);
    return a > b || (a == b && a_id < b_id);
}

// Whether any of kLook values may be among the best: at least the bound, or NaN.
bool any_reaches(const float* values, float bound) {
    int hits = 0;
    for (int i = 0; i < kLook; i++) hits |= !(values[i] < bound);
    return hits != 0;
}

}  // namespace

void BestLists::List::insert(float value, int32_t id) {
    int at = num_kept;
    if (num_kept == num_places) {
        if (!is_better(value, id, values[at - 1], ids[at - 1])) return;
        at--;
    } else {
        num_kept++;
    }
    for (; at > 0 && is_better(value, id, values[at - 1], ids[at - 1]); at--) {
        values[at] = values[at - 1];
        ids[at] = ids[at - 1];
    }
    values[at] = value;
    ids[at] = id;
}

void BestLists::clear(int thread, int num_rows, int count) {
    for (int row = 0; row < num_rows; row++) {
        list(thread, row).num_kept = 0;
        list(thread, row).num_places = count;
    }
}

void BestLists::offer(int thread, int row, int first_id, const float* values, int num_values) {
    List& best = list(thread, row);
    for (int i = 0; i < num_values; i += kLook) {
        const int count = num_values - i < kLook ? num_values - i : kLook;
        const bool is_full = best.num_kept == best.num_places;
        if (is_full && count == kLook && !any_reaches(values + i, best.values[best.num_places - 1])) continue;
        for (int j = 0; j < count; j++) best.insert(values[i + j], first_id + i + j);
    }
}

void BestLists::merge(int num_rows) {
    for (int row = 0; row < num_rows; row++) {
        for (int thread = 1; thread < num_threads_; thread++) {
            const List& other = list(thread, row);
            for (int i = 0; i < other.num_kept; i++) list(0, row).insert(other.values[i], other.ids[i]);
        }
    }
}

}  // namespace tl
