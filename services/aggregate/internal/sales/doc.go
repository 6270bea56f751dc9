// Package sales is the arithmetic of the ledger: what an image of an order, a line or a product changes, what a line
// adds to which cell, and the difference to what it added before. It knows no transport and no database, and holds for
// every history: late, repeated, reordered, corrected, cancelled, deleted.
//
// Images are folded one by one in the order in which they arrive, so that the result does not depend on how they are
// cut into batches.
package sales
