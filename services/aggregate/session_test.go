package aggregate

import (
	"fmt"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// Whatever the records hold, each partition's stay in order, or a position would pass over some.
func TestLinesComeLastInOrder(t *testing.T) {
	order, line := sales.Image{Order: &sales.Order{}}, sales.Image{Line: &sales.Line{}}
	at := func(topic string, part int32, offset int64, i sales.Image) ledger.Record {
		return ledger.Record{Partition: ledger.Partition{Topic: topic, Part: part}, Offset: offset, Image: i}
	}
	got := last([]ledger.Record{
		at("lines", 0, 1, line), at("lines", 0, 2, sales.Image{}), at("lines", 0, 3, line), // 2 is a tombstone, or in quarantine
		at("orders", 0, 7, sales.Image{}), at("orders", 0, 8, order), at("lines", 1, 1, line), at("orders", 1, 4, order),
	}, "lines")
	var places []string
	for _, r := range got {
		places = append(places, fmt.Sprintf("%s/%d@%d", r.Topic, r.Part, r.Offset))
	}
	want := []string{"orders/0@7", "orders/0@8", "orders/1@4", "lines/0@1", "lines/0@2", "lines/0@3", "lines/1@1"}
	if !slices.Equal(places, want) {
		t.Errorf("got %v, want %v", places, want)
	}
}
