//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
	"github.com/millrace-io/millrace/test/realparts"
)

// tab is a page in a headless browser that remembers what its console complained of.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	errors []string
}

func open(t *testing.T, url string) *tab {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(realparts.Chromium(t)), chromedp.WindowSize(1280, 1000),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true))
	alloc, cancelAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() { cancel(); cancelAlloc() })
	p := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, func(ev any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			p.errors = append(p.errors, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			if string(e.Type) == "error" || string(e.Type) == "warning" {
				p.errors = append(p.errors, fmt.Sprintf("%s %s", e.Type, e.Args[0].Value))
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Navigate(url))
	return p
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// eval runs an expression that may be a promise and decodes its JSON.
func (p *tab) eval(js string, into any) {
	p.t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("Promise.resolve("+js+").then(v => JSON.stringify(v === undefined ? null : v))", chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", js, err)
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		p.t.Fatalf("%s gave %s: %v", js, text, err)
	}
}

// wait waits until an expression is true.
func (p *tab) wait(js string) {
	p.t.Helper()
	harness.Eventually(p.t, 20*time.Second, func() bool {
		var ok bool
		p.eval("!!("+js+")", &ok)
		return ok
	}, func() string {
		p.shot("failed")
		var text string
		p.eval("document.body.innerText", &text)
		return js + " does not come true; the page says:\n" + text
	})
}

// choose picks an option of a select as a person does.
func (p *tab) choose(id, value string) {
	p.t.Helper()
	p.wait(fmt.Sprintf(`[...document.querySelector('#%s')?.options ?? []].some(o => o.value === %q)`, id, value))
	var done bool
	p.eval(fmt.Sprintf(`(() => { const s = document.querySelector('#%s'); s.value = %q; s.dispatchEvent(new Event('input', {bubbles: true})); s.dispatchEvent(new Event('change', {bubbles: true})); return true })()`, id, value), &done)
}

// shot keeps a screenshot in $MILLRACE_TEST_SHOTS, if that is set.
func (p *tab) shot(name string) {
	p.t.Helper()
	dir := os.Getenv("MILLRACE_TEST_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		p.t.Log(err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		p.t.Log(err)
	}
}

// accessible fails on any violation of WCAG A or AA that axe-core finds.
func (p *tab) accessible(what string) {
	p.t.Helper()
	axe, err := os.ReadFile(realparts.Axe(p.t))
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[chromedp.Void](string(axe))); err != nil {
		p.t.Fatal(err)
	}
	var violations []string
	p.eval(`axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}).then(r => r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.target.join(' ')).join(', ')))`, &violations)
	if len(violations) > 0 {
		p.t.Errorf("%s: %s", what, strings.Join(violations, "\n"))
	}
}

func (p *tab) quietConsole(what string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.errors) > 0 {
		p.t.Errorf("%s: the console says: %s", what, strings.Join(p.errors, "\n"))
	}
}

// TestPages opens both pages as people do: reads a number on the dashboard and finds the same in SQL, buys in the shop
// and sees the purchase arrive.
func TestPages(t *testing.T) {
	realparts.Chromium(t)
	pgtest.Installation(t)
	d := startDemo(t, "--demo-rate", "0.5")
	d.Ready(t, 90*time.Second)
	sales := pool(t, "postgres://postgres@127.0.0.1:"+d.salesPort+"/millrace?sslmode=disable")
	from := time.Now().UTC().Add(-72 * time.Hour).Truncate(24 * time.Hour)
	to := from.Add(48 * time.Hour) // two whole days that the trickle does not touch but by corrections

	var region, category, product, currency string
	err := sales.QueryRow(t.Context(), `SELECT region, category, product_code, currency FROM millrace.sales_hourly WHERE hour >= $1 AND hour < $2
		GROUP BY 1, 2, 3, 4 ORDER BY sum(net) DESC LIMIT 1`, from, to).Scan(&region, &category, &product, &currency)
	if err != nil {
		t.Fatal(err)
	}
	dash := open(t, d.url(fmt.Sprintf("/?tz=UTC&range=custom&first=%s&last=%s", from.Format(time.DateOnly), to.Add(-time.Hour).Format(time.DateOnly))))
	dash.wait(`document.documentElement.dataset.state === 'ready'`)
	dash.choose("region", region)
	dash.choose("category", category)
	dash.choose("product", product)
	dash.choose("currency", currency)
	same := func() (page, sql string) {
		var units int64
		if err := sales.QueryRow(t.Context(), `SELECT coalesce(sum(units), 0)::bigint, to_char(coalesce(sum(net), 0), 'FM999999990.00') FROM millrace.sales_hourly
			WHERE hour >= $1 AND hour < $2 AND region = $3 AND category = $4 AND product_code = $5 AND currency = $6`, from, to, region, category, product, currency).Scan(&units, &sql); err != nil {
			t.Fatal(err)
		}
		dash.eval(`(document.querySelector('[data-test="net"]')?.dataset.value ?? '')`, &page)
		return page, sql
	}
	var page, sql string
	harness.Eventually(t, 20*time.Second, func() bool {
		page, sql = same()
		return page != "" && trimZeros(page) == trimZeros(sql)
	}, func() string {
		dash.shot("dashboard-failed")
		return fmt.Sprintf("the page shows net %q, SQL says %q", page, sql)
	})
	t.Logf("region %s, category %s, product %s: the page and SQL say %s %s", region, category, product, sql, currency)
	dash.accessible("dashboard")
	dash.shot("dashboard")
	dash.do(chromedp.Navigate(d.url("/?tz=UTC&currency=USD")))
	dash.wait(`document.documentElement.dataset.state === 'ready'`)
	dash.accessible("dashboard, all sales")
	dash.shot("overview")

	shop := open(t, d.url("/shop"))
	shop.wait(`document.querySelectorAll('#main .card').length > 0`)
	shop.wait(`document.querySelectorAll('#recommended-list .card').length > 0`)
	shop.shot("shop")
	shop.accessible("shop")
	var bought string
	shop.eval(`(() => { const c = [...document.querySelectorAll('#main .card')].find(c => !c.innerText.includes('Out of stock')); const a = c.querySelector('a'); a.click(); return decodeURIComponent(a.getAttribute('href').split('/').pop()) })()`, &bought)
	shop.wait(`document.querySelector('.buy button')`)
	shop.accessible("product page")
	shop.do(chromedp.Click(".buy button"))
	shop.wait(`document.querySelector('#cart-count').textContent === '1'`)
	shop.do(chromedp.Click("a.cart"))
	shop.wait(`document.querySelector('.total button')`)
	shop.accessible("cart")
	var before int64
	count := func() (n int64) {
		if err := sales.QueryRow(t.Context(), "SELECT coalesce(sum(lines), 0)::bigint FROM millrace.sales_hourly WHERE product_code = $1", bought).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before = count()
	live := open(t, d.url("/?tz=UTC&currency=USD&product="+bought))
	live.wait(`document.documentElement.dataset.state === 'ready'`)
	var shown string
	live.eval(`(document.querySelector('[data-test="units"]')?.dataset.value ?? '')`, &shown)
	shop.do(chromedp.Click(".total button"))
	shop.wait(`document.querySelector('#status').textContent.includes('Thank you')`)
	harness.Eventually(t, 15*time.Second, func() bool { return count() > before }, func() string { return "the purchase is not in the totals" })
	harness.Eventually(t, 15*time.Second, func() bool {
		var now string
		live.eval(`(document.querySelector('[data-test="units"]')?.dataset.value ?? '')`, &now)
		return now != shown
	}, func() string {
		live.shot("live-failed")
		return "the purchase does not show on the dashboard by itself"
	})
	shop.quietConsole("shop")
	dash.quietConsole("dashboard")
	live.quietConsole("dashboard, live")
}

func trimZeros(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
