package salestest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// Store makes n order lines of a plausible shop, each order's header before its lines: three lines an order, some
// hundred products, seven countries, the orders one after the other over the six hours before end.
func Store(n int, end time.Time) []Record {
	rng := rand.New(rand.NewPCG(11, 12))
	places := [...][2]string{{"USA", "NA"}, {"France", "EMEA"}, {"Germany", "EMEA"}, {"UK", "EMEA"}, {"Spain", "EMEA"}, {"Australia", "APAC"}, {"Japan", "Japan"}}
	var out []Record
	seq := int64(0)
	for lines, order := 0, 0; lines < n; order++ {
		seq++
		place := places[rng.IntN(len(places))]
		id, customer := fmt.Sprint(10000+order), fmt.Sprint(rng.IntN(100_000))
		out = append(out, Record{Order: &schemas.Order{OrderID: id, Seq: seq, RefSeq: 1, PlacedAt: end.Add(-6 * time.Hour * time.Duration(n-lines) / time.Duration(n)),
			Status: "Shipped", Cancelled: rng.IntN(50) == 0, CustomerKey: &customer, Country: place[0], Region: place[1], Currency: "USD", ChangedAt: end}})
		for i := range min(1+rng.IntN(5), n-lines) {
			seq++
			lines++
			out = append(out, Record{Line: &schemas.Line{LineID: fmt.Sprintf("%s|%d", id, i+1), Seq: seq, RefSeq: 1, OrderID: id,
				ProductCode: fmt.Sprintf("S%d_%d", 10+rng.IntN(60), 1000+rng.IntN(2)), ProductName: "1969 Harley Davidson Ultimate Chopper", Category: "Motorcycles",
				Units: int64(1 + rng.IntN(50)), UnitPrice: fmt.Sprintf("%d.%02d", 20+rng.IntN(180), rng.IntN(100)), ChangedAt: end}})
		}
	}
	return out
}
