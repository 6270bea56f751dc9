package sales

import "github.com/millrace-io/millrace/schemas"

// Outcome is how an input record ended.
type Outcome uint8

// The outcomes. Every input record has exactly one.
const (
	Applied     Outcome = iota // it changed what the ledger holds
	Unchanged                  // a newer version of the same content, or nothing to say (a tombstone)
	Superseded                 // the ledger has a newer version
	Duplicate                  // the ledger has this version
	Quarantined                // it cannot be taken
	Outcomes                   // how many there are
)

// String is the outcome as metrics name it.
func (o Outcome) String() string {
	return [...]string{"applied", "unchanged", "superseded", "duplicate", "quarantined", ""}[o]
}

// judge compares versions; the outcome matters only when the image is not to be taken.
func judge(known bool, old, img schemas.Version) (take bool, not Outcome) {
	switch {
	case !known || img.Newer(old):
		return true, Applied
	case img == old:
		return false, Duplicate
	default:
		return false, Superseded
	}
}

// Fold takes an image of the order into o.
func (o *Order) Fold(img Order) Outcome {
	take, not := judge(o.Known, o.Version, img.Version)
	if !take {
		return not
	}
	img.Counted = o.Counted
	if o.Known && img.Gone {
		// The image is empty. What was known stays, so that the dimensions hold if the order comes back.
		kept := *o
		kept.Version, kept.Gone = img.Version, true
		img = kept
	} else if o.Known {
		img.Country, img.Region = dimensions(*o, img)
	}
	before := *o
	*o = img
	before.Version = o.Version
	if before.same(*o) {
		return Unchanged
	}
	return Applied
}

// dimensions are the country and the region of an order: what was known first, for the same customer.
func dimensions(old, img Order) (country, region string) {
	if old.HasCustomer != img.HasCustomer || old.Customer != img.Customer {
		return img.Country, img.Region
	}
	return firstKnown(old.Country, img.Country), firstKnown(old.Region, img.Region)
}

func firstKnown(old, now string) string {
	if old != schemas.Unknown {
		return old
	}
	return now
}

func (o Order) same(p Order) bool {
	placed := o.PlacedAt.Equal(p.PlacedAt)
	o.PlacedAt = p.PlacedAt
	return placed && o == p
}

// Fold takes an image of the line into l. A line that is gone stays with its order: its image may not name it.
func (l *Line) Fold(img Line) Outcome {
	take, not := judge(l.Known, l.Version, img.Version)
	if !take {
		return not
	}
	before := *l
	img.Counted, img.Waiting = l.Counted, l.Waiting
	if img.Gone && img.OrderID == "" {
		img.OrderID = l.OrderID
	}
	*l = img
	if before.Known && before.Gone == l.Gone && before.OrderID == l.OrderID && before.Product == l.Product &&
		before.Units == l.Units && before.Price.Equal(l.Price) {
		return Unchanged
	}
	return Applied
}

// Fold takes an image of the product into p. A product that is gone keeps its name, for past sales still show it.
func (p *Product) Fold(img Product) Outcome {
	take, not := judge(p.Known, p.Version, img.Version)
	if !take {
		return not
	}
	before := *p
	if before.Known && img.Gone {
		img.Name, img.Category = before.Name, before.Category
	}
	*p = img
	before.Version = p.Version
	if before == *p {
		return Unchanged
	}
	return Applied
}
