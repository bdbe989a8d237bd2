// fill: copies the batch of a step into the buffers that a graph reads.
//
//     own_x[:sequences] = x, and the values of an absent token after it      for each array x with one number a sequence
//     own_tables[:sequences, :width] = tables
//
// token_ids, positions, slots, context_lens, logit_rows    int [sequences] -> int [own_sequences]
// tables                                                   int [sequences, width] -> int [own_sequences, own_width]
//
// A graph has a fixed shape, and a batch may be smaller. An absent sequence has the slot -1, to which nothing is
// written, and a context of 0, of which nothing is read. There is one thread for each entry of the block tables; the
// threads of the first column copy the other arrays. One launch copies all arrays, because six copies would take longer
// than a layer.

#include "common.cuh"

extern "C" __global__ void fill(const int* __restrict__ token_ids, const int* __restrict__ positions,
                                const int* __restrict__ slots, const int* __restrict__ context_lens,
                                const int* __restrict__ logit_rows, const int* __restrict__ tables,
                                int* __restrict__ own_token_ids, int* __restrict__ own_positions,
                                int* __restrict__ own_slots, int* __restrict__ own_context_lens,
                                int* __restrict__ own_logit_rows, int* __restrict__ own_tables, int sequences, int width,
                                int own_sequences, int own_width) {
    int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= own_sequences * own_width) return;
    int sequence = place / own_width, column = place % own_width;
    bool is_there = sequence < sequences;
    own_tables[place] = is_there && column < width ? tables[sequence * width + column] : 0;
    if (column) return;
    own_token_ids[sequence] = is_there ? token_ids[sequence] : 0;
    own_positions[sequence] = is_there ? positions[sequence] : 0;
    own_slots[sequence] = is_there ? slots[sequence] : -1;
    own_context_lens[sequence] = is_there ? context_lens[sequence] : 0;
    own_logit_rows[sequence] = is_there ? logit_rows[sequence] : 0;
}
