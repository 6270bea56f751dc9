package sales

import (
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Price is an exact decimal. The zero value is 0. Two prices of the same value are equal by [Price.Equal].
type Price struct {
	coef  int64    // when wide is nil
	wide  *big.Int // coefficients that do not fit into an int64
	scale int32    // the value is the coefficient times 10 to the power of -scale
}

// ErrPrice says that a text is not a finite decimal of a sensible length.
var ErrPrice = errors.New("not a decimal number")

// maxDigits bounds the length of a price: beyond any store's, and short enough to calculate with.
const maxDigits = 200

// ParsePrice reads a decimal such as "12.50" or "-0.001", without exponent. It fails with [ErrPrice].
func ParsePrice(s string) (Price, error) {
	if len(s) > maxDigits {
		return Price{}, ErrPrice
	}
	whole, fraction, _ := strings.Cut(s, ".")
	digits := whole + fraction
	unsigned := strings.TrimPrefix(strings.TrimPrefix(digits, "-"), "+")
	if unsigned == "" || len(digits)-len(unsigned) > 1 || strings.Trim(unsigned, "0123456789") != "" || strings.HasSuffix(s, ".") {
		return Price{}, ErrPrice
	}
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
		return smallPrice(n, int32(len(fraction))), nil
	}
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return Price{}, ErrPrice
	}
	return NewPrice(n, int32(len(fraction))), nil
}

// NewPrice is coef times 10 to the power of -scale.
func NewPrice(coef *big.Int, scale int32) Price {
	if coef.IsInt64() {
		return smallPrice(coef.Int64(), scale)
	}
	ten, digit, n := big.NewInt(10), new(big.Int), new(big.Int).Set(coef)
	for {
		q, r := new(big.Int).QuoRem(n, ten, digit)
		if r.Sign() != 0 {
			return Price{wide: n, scale: scale}
		}
		n, scale = q, scale-1
		if n.IsInt64() {
			return smallPrice(n.Int64(), scale)
		}
	}
}

func smallPrice(coef int64, scale int32) Price {
	if coef == 0 {
		return Price{}
	}
	for coef%10 == 0 {
		coef, scale = coef/10, scale-1
	}
	return Price{coef: coef, scale: scale}
}

// Parts are the coefficient and the scale: the value is coef times 10 to the power of -scale.
func (p Price) Parts() (coef *big.Int, scale int32) {
	if p.wide != nil {
		return p.wide, p.scale
	}
	return big.NewInt(p.coef), p.scale
}

// Equal tells whether both are the same value.
func (p Price) Equal(q Price) bool {
	if p.wide != nil && q.wide != nil {
		return p.scale == q.scale && p.wide.Cmp(q.wide) == 0
	}
	return p.wide == nil && q.wide == nil && p.scale == q.scale && p.coef == q.coef
}

// Amount is units times price in minor units of a currency with that many decimals, rounded half away from zero. It is
// false if the amount does not fit into an int64.
func Amount(units int64, p Price, exponent int) (int64, bool) {
	drop := int(p.scale) - exponent // decimals to round away
	if p.wide == nil && abs(p.coef) < math.MaxInt32 && abs(units) < math.MaxInt32 && drop >= 0 && drop <= 18 {
		return roundedQuotient(p.coef*units, pow10(drop)), true
	}
	coef, _ := p.Parts()
	n := new(big.Int).Mul(coef, big.NewInt(units))
	if drop <= 0 {
		n.Mul(n, bigPow10(-drop))
	} else {
		half := bigPow10(drop)
		d := new(big.Int).Set(half)
		half.Rsh(half, 1) // 10^drop is even
		if n.Sign() < 0 {
			n.Sub(n, half)
		} else {
			n.Add(n, half)
		}
		n.Quo(n, d) // towards zero
	}
	return n.Int64(), n.IsInt64()
}

func roundedQuotient(n, d int64) int64 {
	q, r := n/d, abs(n%d)
	if r >= d-r { // r >= d/2 without its rounding
		if n < 0 {
			return q - 1
		}
		return q + 1
	}
	return q
}

func pow10(n int) int64 {
	p := int64(1)
	for range n {
		p *= 10
	}
	return p
}

func bigPow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

func abs(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}
