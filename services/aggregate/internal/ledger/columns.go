package ledger

import (
	"time"

	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// cellColumns are cells as the arrays of one statement.
type cellColumns struct {
	cell                                                           []time.Time
	region, country, product, currency                             []string
	lines, cancelledLines, units, cancelledUnits, gross, cancelled []int64
}

func newCellColumns(keys []sales.CellKey, cells []sales.Cell) cellColumns {
	var c cellColumns
	for i, k := range keys {
		c.cell = append(c.cell, time.Unix(k.Cell, 0).UTC())
		c.region, c.country = append(c.region, k.Region), append(c.country, k.Country)
		c.product, c.currency = append(c.product, k.Product), append(c.currency, k.Currency)
		c.lines, c.cancelledLines = append(c.lines, cells[i].Lines), append(c.cancelledLines, cells[i].CancelledLines)
		c.units, c.cancelledUnits = append(c.units, cells[i].Units), append(c.cancelledUnits, cells[i].CancelledUnits)
		c.gross, c.cancelled = append(c.gross, cells[i].Gross), append(c.cancelled, cells[i].Cancelled)
	}
	return c
}

// orderCellColumns are order cells as the arrays of one statement.
type orderCellColumns struct {
	cell                      []time.Time
	region, country, currency []string
	orders, cancelled         []int64
}

func newOrderCellColumns(keys []sales.OrderCellKey, cells []sales.OrderCell) orderCellColumns {
	var c orderCellColumns
	for i, k := range keys {
		c.cell = append(c.cell, time.Unix(k.Cell, 0).UTC())
		c.region, c.country, c.currency = append(c.region, k.Region), append(c.country, k.Country), append(c.currency, k.Currency)
		c.orders, c.cancelled = append(c.orders, cells[i].Orders), append(c.cancelled, cells[i].CancelledOrders)
	}
	return c
}

// optional is nil for the null of an empty text or time.
func optional[T any](there bool, v T) *T {
	if !there {
		return nil
	}
	return &v
}
