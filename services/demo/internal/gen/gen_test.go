package gen

import (
	"reflect"
	"testing"
	"time"
)

var testNow = time.Date(2026, 3, 18, 15, 42, 7, 123456000, time.UTC)

// liveRate is the demo's usual rate, in orders per second.
const liveRate = 0.2

func TestSameSeedSameWorld(t *testing.T) {
	a, b := New(7, testNow, 60, liveRate), New(7, testNow, 60, liveRate)
	if !reflect.DeepEqual(a, b) {
		t.Fatal("two worlds from the same seed and time differ")
	}
	if other := New(8, testNow, 60, liveRate); reflect.DeepEqual(a.Orders, other.Orders) {
		t.Fatal("another seed gave the same orders")
	}
}

func TestPeopleDoNotDependOnTheHistory(t *testing.T) {
	a, b := New(7, testNow, 60, liveRate), New(7, testNow.Add(999*time.Hour), 5, liveRate)
	if !reflect.DeepEqual(a.Customers, b.Customers) || !reflect.DeepEqual(a.Products, b.Products) {
		t.Fatal("customers or products changed with the length of the history")
	}
}

func TestSizes(t *testing.T) {
	w := New(1, testNow, 60, liveRate)
	within := func(what string, got, low, high int) {
		t.Helper()
		t.Logf("%s: %d", what, got)
		if got < low || got > high {
			t.Errorf("%s: got %d, want %d to %d", what, got, low, high)
		}
	}
	within("offices", len(w.Offices), 7, 7)
	within("employees", len(w.Employees), 20, 30)
	within("customers", len(w.Customers), 2001, 2001)
	within("lines", len(w.Lines), 8, 8)
	within("products", len(w.Products), 180, 180)
	within("order lines", w.OrderLines(), 70000, 90000)
	within("ratings", len(w.Ratings), 3000, 9000)
}

func TestRowsFitTogether(t *testing.T) {
	w := New(3, testNow, 60, liveRate)
	customer, product, line := map[int]bool{}, map[string]bool{}, map[string]bool{}
	for _, l := range w.Lines {
		line[l.Name] = true
	}
	names := map[string]bool{}
	for _, p := range w.Products {
		if product[p.Code] || names[p.Name+p.Scale+p.Vendor] {
			t.Errorf("product %s is there twice", p.Code)
		}
		product[p.Code], names[p.Name+p.Scale+p.Vendor] = true, true
		if !line[p.Line] || p.Buy <= 0 || p.MSRP <= p.Buy || p.Stock <= 0 {
			t.Errorf("product %+v is not sound", p)
		}
	}
	mails := map[string]bool{}
	for _, c := range w.Customers {
		if customer[c.Number] || mails[c.Email] {
			t.Errorf("customer %d is there twice", c.Number)
		}
		customer[c.Number], mails[c.Email] = true, true
	}
	last := testNow.AddDate(0, 0, -60)
	for i, o := range w.Orders {
		if o.Number != firstOrder+int64(i) || o.At.Before(last) || o.At.After(testNow) || !customer[o.Customer] || len(o.Lines) == 0 {
			t.Fatalf("order %d at %s is not sound", o.Number, o.At)
		}
		last = o.At
		seen := map[string]bool{}
		for _, l := range o.Lines {
			if seen[l.Code] || !product[l.Code] || l.Price <= 0 || l.Quantity == 0 || (l.Quantity < 0) != (o.Status == Returned) {
				t.Fatalf("order %d (%s) has the line %+v", o.Number, o.Status, l)
			}
			seen[l.Code] = true
		}
	}
}

func TestStatuses(t *testing.T) {
	for _, c := range []struct{ rate, returned float64 }{
		{0, 0.01},
		{liveRate, 0.004}, // those who bought in the last days have not sent anything back yet
	} {
		w := New(1, testNow, 60, c.rate)
		share := map[string]float64{}
		for _, o := range w.Orders {
			share[o.Status] += 1 / float64(len(w.Orders))
		}
		for status, limits := range map[string][2]float64{
			Shipped: {0.8, 0.95}, Cancelled: {0.02, 0.05}, Returned: {c.returned, 0.04}, Disputed: {0.004, 0.02},
			Resolved: {0.005, 0.03}, InProcess: {0.005, 0.05}, OnHold: {0.0001, 0.01},
		} {
			if got := share[status]; got < limits[0] || got > limits[1] {
				t.Errorf("share of %q at %v orders/s is %.4f, want %v", status, c.rate, got, limits)
			}
		}
	}
}

func TestDailyAndWeeklyRhythmIsLocal(t *testing.T) {
	w := New(1, testNow, 56, 0) // whole weeks, none busier than the others
	markets := Markets()
	country := map[int]string{}
	for _, c := range w.Customers {
		country[c.Number] = c.Country
	}
	for _, territory := range []string{"NA", "EMEA", "Japan"} {
		var hour [24]int
		var weekday [7]int
		for _, o := range w.Orders {
			m, _ := MarketOf(markets, country[o.Customer])
			if m.Territory == territory {
				local := o.At.Add(m.Offset)
				hour[local.Hour()]++
				weekday[local.Weekday()]++
			}
		}
		night, evening := hour[2]+hour[3]+hour[4], hour[19]+hour[20]+hour[21]
		if evening < 5*night {
			t.Errorf("%s: %d orders in three evening hours, %d in three night hours", territory, evening, night)
		}
		if weekday[time.Sunday] <= weekday[time.Tuesday] {
			t.Errorf("%s: %d orders on Sundays, %d on Tuesdays", territory, weekday[time.Sunday], weekday[time.Tuesday])
		}
	}
}

func TestClustersAreBoughtTogether(t *testing.T) {
	w := New(1, testNow, 60, liveRate)
	cluster := map[string]int{}
	for _, p := range w.Products {
		cluster[p.Code] = p.Cluster
	}
	// Lift of "same cluster" for a pair of lines of one order, against pairs of
	// lines of neighbouring orders.
	var together, pairs, apart, chance float64
	for i, o := range w.Orders[1:] {
		for a, x := range o.Lines {
			for _, y := range o.Lines[:a] {
				pairs++
				if cluster[x.Code] == cluster[y.Code] {
					together++
				}
			}
			for _, y := range w.Orders[i].Lines {
				chance++
				if cluster[x.Code] == cluster[y.Code] {
					apart++
				}
			}
		}
	}
	if lift := (together / pairs) / (apart / chance); lift < 2 {
		t.Errorf("lift of affinity clusters is %.2f, want more than 2", lift)
	}
}

func TestCurrenciesFollowTheMarket(t *testing.T) {
	w := New(1, testNow, 60, liveRate)
	country := map[int]string{}
	for _, c := range w.Customers {
		country[c.Number] = c.Country
	}
	seen := map[string]int{}
	for _, o := range w.Orders {
		m, known := MarketOf(Markets(), country[o.Customer])
		if !known || o.Currency != m.Currency {
			t.Fatalf("order %d of a customer in %s is in %s", o.Number, country[o.Customer], o.Currency)
		}
		seen[o.Currency]++
		for _, l := range o.Lines {
			if o.Currency == "JPY" && l.Price%100 != 0 {
				t.Fatalf("order %d has the price %d in hundredths of a yen", o.Number, l.Price)
			}
		}
	}
	for _, code := range []string{"USD", "EUR", "GBP", "JPY", "AUD", "INR", "BRL"} {
		if seen[code] == 0 {
			t.Errorf("no order in %s", code)
		}
	}
}

func TestSpikesAreVisible(t *testing.T) {
	w := New(1, testNow, 60, liveRate)
	line := map[string]string{}
	for _, p := range w.Products {
		line[p.Code] = p.Line
	}
	territory := map[int]string{}
	for _, c := range w.Customers {
		m, _ := MarketOf(Markets(), c.Country)
		territory[c.Number] = m.Territory
	}
	spike := Spikes(1, testNow, 60)[0]
	if spike.From.Before(testNow.Add(-24*time.Hour)) || spike.From.After(testNow) {
		t.Fatalf("the first spike starts at %s, not in the last day", spike.From)
	}
	count := func(from, to time.Time) (n int) {
		for _, o := range w.Orders {
			if o.At.Before(from) || !o.At.Before(to) || territory[o.Customer] != spike.Territory {
				continue
			}
			for _, l := range o.Lines {
				if line[l.Code] == spike.Line {
					n++
				}
			}
		}
		return n
	}
	week := 7 * 24 * time.Hour
	during, before := count(spike.From, spike.To), count(spike.From.Add(-week), spike.To.Add(-week))
	if during < 3*before+20 {
		t.Errorf("%d lines during the spike, %d in the same hours a week before", during, before)
	}
	// The store has grown since then, so compare with its neighbours too.
	hour := float64(time.Hour)
	beside := float64(count(spike.From.Add(-3*time.Hour), spike.From)+count(spike.To, spike.To.Add(3*time.Hour))) / 6
	if rate := float64(during) / (float64(spike.To.Sub(spike.From)) / hour); rate < 1.5*beside {
		t.Errorf("%.0f lines an hour during the spike, %.0f beside it", rate, beside)
	}
}

func TestPrices(t *testing.T) {
	for _, c := range []struct {
		currency string
		usd      Hundredths
		want     Hundredths
	}{
		{"USD", 2999, 2999}, {"EUR", 2999, 2799}, {"JPY", 2999, 450000}, {"GBP", 1, 99}, {"JPY", 1, 1000}, {"---", 500, 500},
	} {
		if got := NewPrices().In(c.currency, c.usd); got != c.want {
			t.Errorf("%d US cents in %s: got %d, want %d", c.usd, c.currency, got, c.want)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New(1, testNow, 60, liveRate)
	}
}
