package gen

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// Picker draws products and baskets the way this store's shoppers do: by
// popularity (Zipf), by taste, and by what goes well together. It is immutable
// after NewPicker and safe for concurrent use; the random source is the caller's.
type Picker struct {
	products  []Product
	all       weighted
	byCluster []weighted
	byLine    map[string]weighted
}

// weighted is a set of product indexes with cumulative weights.
type weighted struct {
	index []int
	cum   []float64
}

func (w *weighted) add(i int, weight float64) {
	if n := len(w.cum); n > 0 {
		weight += w.cum[n-1]
	}
	w.index, w.cum = append(w.index, i), append(w.cum, weight)
}

func (w weighted) draw(r *rand.Rand) int {
	at := sort.SearchFloat64s(w.cum, r.Float64()*w.cum[len(w.cum)-1])
	return w.index[min(at, len(w.index)-1)]
}

// NewPicker prepares drawing from products; hidden ones are never drawn. Which
// products are popular depends on the seed only.
func NewPicker(seed uint64, products []Product) *Picker {
	p := &Picker{products: products, byCluster: make([]weighted, Clusters), byLine: map[string]weighted{}}
	rank := newRand(seed, streamCatalogue+100).Perm(len(products))
	for i, product := range products {
		if product.Hidden {
			continue
		}
		weight := 1 / math.Pow(float64(rank[i]+6), 0.8)
		p.all.add(i, weight)
		p.byCluster[product.Cluster].add(i, weight)
		line := p.byLine[product.Line]
		line.add(i, weight)
		p.byLine[product.Line] = line
	}
	return p
}

// Products returns the products that the indexes refer to. Not to be changed.
func (p *Picker) Products() []Product { return p.products }

// Product draws one product for somebody of the given taste.
func (p *Picker) Product(r *rand.Rand, taste []int) int {
	if len(taste) > 0 && r.Float64() < 0.7 {
		at := min(int(r.ExpFloat64()*0.7), len(taste)-1)
		return p.inCluster(r, taste[at])
	}
	return p.all.draw(r)
}

// InLine draws one product of a product line; of an unknown one, any.
func (p *Picker) InLine(r *rand.Rand, line string) int {
	if w, ok := p.byLine[line]; ok {
		return w.draw(r)
	}
	return p.all.draw(r)
}

// Related draws what somebody of the given taste looks at after product i.
func (p *Picker) Related(r *rand.Rand, i int, taste []int) int {
	if r.Float64() < 0.6 {
		return p.inCluster(r, p.products[i].Cluster)
	}
	return p.Product(r, taste)
}

func (p *Picker) inCluster(r *rand.Rand, c int) int {
	if len(p.byCluster[c].index) == 0 {
		return p.all.draw(r)
	}
	return p.byCluster[c].draw(r)
}

// Basket draws the distinct products of one order. If line is not empty, the
// first product is of that product line.
func (p *Picker) Basket(r *rand.Rand, taste []int, line string) []int {
	sizes := []float64{0.22, 0.46, 0.66, 0.80, 0.89, 0.95, 1}
	size := 1 + sort.SearchFloat64s(sizes, r.Float64())
	var first int
	if line != "" {
		first = p.InLine(r, line)
	} else {
		first = p.Product(r, taste)
	}
	basket := []int{first}
	for tries := 0; len(basket) < size && tries < 4*size; tries++ {
		next := p.Related(r, basket[len(basket)-1], taste)
		if !slices.Contains(basket, next) {
			basket = append(basket, next)
		}
	}
	return basket
}

// Quantity draws how many of one product somebody buys.
func Quantity(r *rand.Rand) int {
	return 1 + min(int(r.ExpFloat64()*0.8), 11)
}
