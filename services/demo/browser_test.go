//go:build e2e

package demo

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/go-chi/chi/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/realparts"
)

// shopSite is the shop with stand-ins for collect and recommend on its own origin.
type shopSite struct {
	*httptest.Server
	mu      sync.Mutex
	actions []string
	asked   []string // bodies of the requests for recommendations
}

func newShopSite(t *testing.T, s *Service) *shopSite {
	site := &shopSite{}
	r := chi.NewRouter()
	s.Routes(r)
	r.Post("/v1/activity", func(w http.ResponseWriter, r *http.Request) {
		var batch struct {
			Events []struct{ Action string }
		}
		if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
			t.Errorf("activity: %v", err)
		}
		site.mu.Lock()
		defer site.mu.Unlock()
		for _, e := range batch.Events {
			site.actions = append(site.actions, e.Action)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	r.Post("/v1/recommendations", func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("recommendations: %v", err)
		}
		site.mu.Lock()
		defer site.mu.Unlock()
		site.asked = append(site.asked, string(body))
		answer(w, http.StatusOK, map[string]any{
			"recommended_items": []map[string]any{
				{"id": "CYC-001", "score": 0.9, "reason": "<img src=x onerror=document.title='owned'>"}, {"id": "MIL-002", "score": 0.8, "reason": "popular"}},
			"similar_items": []any{}, "request_id": "r", "model_version": "m7", "level": "similarity",
		})
	})
	site.Server = httptest.NewServer(r)
	t.Cleanup(site.Close)
	return site
}

func (s *shopSite) did(action string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.actions, action)
}

func (s *shopSite) wasAsked(with string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.asked, func(body string) bool { return strings.Contains(body, with) })
}

// browser opens a tab and collects what the page writes to the console.
func browser(t *testing.T) (context.Context, func() []string) {
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(realparts.Chromium(t)))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	var mu sync.Mutex
	var console []string
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithListener(func(e any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := e.(type) {
		case *runtime.EventConsoleAPICalled:
			console = append(console, "console."+string(e.Type))
		case *runtime.EventExceptionThrown:
			console = append(console, e.ExceptionDetails.Text)
		case *log.EventEntryAdded: // refused by the policy, not found, and the like
			console = append(console, e.Entry.Text+" "+e.Entry.URL)
		}
	}))
	t.Cleanup(cancel)
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(console)
	}
}

func TestShopInABrowser(t *testing.T) {
	dsn := pgtest.Database(t)
	s := start(t, dsn, nil)
	conn := pgtest.Connect(t, dsn)
	exec(t, conn, "UPDATE products SET hidden = false")
	before := query[int](t, conn, "SELECT count(*) FROM orders")
	site := newShopSite(t, s.Service)
	axe, err := os.ReadFile(realparts.Axe(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, console := browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	do := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatal(err)
		}
	}
	until := func(js string) {
		t.Helper()
		if _, err := chromedp.Run(ctx, chromedp.Poll[bool](js)); err != nil {
			text, _ := chromedp.Run(context.WithoutCancel(ctx), chromedp.Evaluate[string]("document.body.innerText"))
			t.Fatalf("waiting for %s: %v; console: %v; the page:\n%s", js, err, console(), text)
		}
	}
	check := func(page string) {
		t.Helper()
		do(chromedp.Evaluate[chromedp.Void](string(axe)))
		for _, scheme := range []string{"light", "dark"} {
			media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
			if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
				t.Fatal(err)
			}
			found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](
				`axe.run().then(r => r.violations.flatMap(v => v.nodes.map(n => v.id + " " + n.target)))`, chromedp.EvalAwaitPromise))
			if err != nil || len(found) > 0 {
				t.Errorf("%s, %s: %v %v", page, scheme, found, err)
			}
		}
	}

	do(chromedp.Navigate(site.URL + "/shop"))
	until(`document.querySelectorAll('.grid li').length > 10 && !document.querySelector('#recommended').hidden`)
	until(`document.querySelector('#recommended-level').textContent.includes('similarity')`)
	check("home")

	do(chromedp.SetValue("#customer", "1001"), chromedp.Evaluate[chromedp.Void](`document.querySelector('#customer').selectedIndex = 12; document.querySelector('#customer').dispatchEvent(new Event('change'))`))
	eventually(t, 10*time.Second, "recommendations know who asks", func() bool { return site.wasAsked(`"customer_number":`) })

	do(chromedp.SendKeys("#q", "clipper\r"))
	until(`document.querySelector('h1').textContent.includes('clipper') && document.querySelectorAll('.grid li').length > 0`)
	do(chromedp.Evaluate[chromedp.Void](`document.querySelector('.grid a').click()`))
	until(`document.querySelector('.buy button') && document.activeElement.tagName === 'H1'`)
	check("product")
	do(chromedp.Click(".buy button"))
	until(`document.querySelector('#cart-count').textContent === '1'`)
	eventually(t, 10*time.Second, "recommendations know the cart", func() bool { return site.wasAsked(`"in_shopping_cart":true`) })

	do(chromedp.Click("a.cart"))
	until(`document.querySelectorAll('main tbody tr').length === 1`)
	check("cart")
	do(chromedp.Click(".total button"))
	until(`document.querySelector('#status').textContent.includes('Thank you')`)
	if after := query[int](t, conn, "SELECT count(*) FROM orders"); after != before+1 {
		t.Errorf("%d orders became %d", before, after)
	}
	for _, action := range []string{"view", "search", "add_to_cart", "checkout", "purchase"} {
		eventually(t, 10*time.Second, "collect was told of "+action, func() bool { return site.did(action) })
	}
	title, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.title"))
	if err != nil || title == "owned" {
		t.Errorf("an answer became markup: %q %v", title, err)
	}
	if lines := console(); len(lines) > 0 {
		t.Errorf("the page complains: %v", lines)
	}
}
