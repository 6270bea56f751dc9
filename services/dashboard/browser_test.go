//go:build e2e

package dashboard

import (
	"context"
	"fmt"
	"net/url"
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
	"github.com/chromedp/chromedp/kb"

	"github.com/millrace-io/millrace/test/realparts"
)

// tab is a browser's tab and what the page wrote to its console.
type tab struct {
	ctx     context.Context
	mu      sync.Mutex
	console []string
}

func openTab(t *testing.T) *tab {
	b := &tab{}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(realparts.Chromium(t)))
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithListener(func(e any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := e.(type) {
		case *runtime.EventConsoleAPICalled:
			b.console = append(b.console, "console."+string(e.Type))
		case *runtime.EventExceptionThrown:
			b.console = append(b.console, e.ExceptionDetails.Text)
		case *log.EventEntryAdded: // refused by the policy, not found, and the like
			b.console = append(b.console, e.Entry.Text+" "+e.Entry.URL)
		}
	}))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	// A page that is not in front gets no focus events.
	if _, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	b.ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return b
}

func (b *tab) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

func (b *tab) js(t *testing.T, js string) {
	t.Helper()
	b.do(t, chromedp.Evaluate[chromedp.Void](js))
}

func (b *tab) text(t *testing.T, js string) string {
	t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](js))
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return text
}

func (b *tab) until(t *testing.T, js string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](js)); err != nil {
		t.Fatalf("waiting for %s: %v; console: %v; the page:\n%s", js, err, b.complaints(), b.text(t, "document.body.innerText"))
	}
}

func (b *tab) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.console)
}

// choose sets a select as a viewer does.
func (b *tab) choose(t *testing.T, id, value string) {
	t.Helper()
	b.js(t, fmt.Sprintf(`(() => { const s = document.getElementById(%q); s.focus(); s.value = %q; s.dispatchEvent(new Event('change', { bubbles: true })) })()`, id, value))
	b.until(t, `document.documentElement.dataset.state === 'ready'`)
}

func (b *tab) scheme(t *testing.T, scheme string) {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatal(err)
	}
}

func (b *tab) accessible(t *testing.T, what string) {
	t.Helper()
	axe, err := os.ReadFile(realparts.Axe(t))
	if err != nil {
		t.Fatal(err)
	}
	b.js(t, string(axe))
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(t, scheme)
		found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](
			`axe.run().then(r => r.violations.flatMap(v => v.nodes.map(n => v.id + " " + n.target + " " + n.html.slice(0, 120))))`, chromedp.EvalAwaitPromise))
		if err != nil || len(found) > 0 {
			t.Errorf("%s, %s: %v %v", what, scheme, strings.Join(found, "\n"), err)
		}
	}
}

const ready = `document.documentElement.dataset.state === 'ready'`

func value(name string) string {
	return fmt.Sprintf(`document.querySelector('[data-test=%q]').dataset.value`, name)
}

func TestPageInABrowser(t *testing.T) {
	now := time.Now()
	s := open(t, now)
	s.service.deps.Now = time.Now
	s.history(t, now)
	s.complete(t, now.UTC().Format(time.RFC3339Nano))
	b := openTab(t)
	b.do(t, chromedp.Navigate(s.URL+"/?tz=UTC"))
	b.until(t, ready+` && document.querySelectorAll('g.bar').length === 24`)
	total := func(pairs ...string) string {
		a := s.ask(t, append(pairs, "currency", b.text(t, `document.querySelector('#currency').value`))...)
		return a.Totals[0].Net
	}
	if got, want := b.text(t, value("net")), total(); got != want {
		t.Errorf("net is %s on the page, %s in the API", got, want)
	}
	b.accessible(t, "first sight")
	b.js(t, `document.querySelectorAll('g.bar')[23].focus()`)
	b.until(t, `!document.querySelector('.tip').hidden && document.querySelector('.tip').textContent.includes('so far')`)
	b.do(t, chromedp.KeyEvent(kb.ArrowLeft))
	b.until(t, `document.activeElement.dataset.index === '22' && !document.querySelector('.tip').textContent.includes('so far')`)

	b.choose(t, "region", "EMEA")
	if got, want := b.text(t, value("net")), total("region", "EMEA"); got != want || !strings.Contains(b.text(t, "location.search"), "region=EMEA") {
		t.Errorf("EMEA: %s on the page, %s in the API, at %s", got, want, b.text(t, "location.search"))
	}
	b.choose(t, "category", "Ships")
	b.until(t, `document.querySelector('[data-test="orders"]').textContent === '–'`)
	b.js(t, `document.querySelector('#toggle').click()`)
	b.until(t, `document.querySelectorAll('#table tbody tr').length === 24`)
	b.accessible(t, "filtered, with the table")
	csv := b.text(t, `(() => { const x = new XMLHttpRequest(); x.open('GET', document.querySelector('#csv').href, false); x.send(); return x.responseText })()`)
	if lines := strings.Count(strings.TrimSpace(csv), "\n"); lines != 24 || !strings.HasPrefix(csv, "start,") {
		t.Errorf("the CSV has %d rows: %.200s", lines, csv)
	}
	b.js(t, `history.go(-2)`)
	b.until(t, ready+` && !location.search.includes('region') && document.querySelector('#region').value === ''`)

	b.do(t, chromedp.Navigate(s.URL+"/?"+url.Values{"range": {"30d"}, "tz": {"Asia/Kolkata"}, "currency": {"JPY"}}.Encode()))
	b.until(t, ready+` && document.querySelectorAll('g.bar').length === 30 && document.querySelector('#tz').value === 'Asia/Kolkata'`)
	b.accessible(t, "thirty days")

	// A sale arrives: the number changes, the focus stays.
	b.do(t, chromedp.Navigate(s.URL+"/?tz=UTC&currency=EUR"))
	b.until(t, ready+` && document.querySelectorAll('g.bar').length === 24`)
	before := b.text(t, value("net"))
	b.js(t, `document.querySelector('#products button').focus()`)
	s.sell(t, sold{time.Now().UTC().Truncate(15 * time.Minute).Format(time.RFC3339), "EMEA", "France", "late", "EUR", 1, 1, 123, 0, 0})
	b.until(t, value("net")+fmt.Sprintf(` !== %q`, before))
	if tag := b.text(t, `document.activeElement.tagName`); tag != "BUTTON" {
		t.Errorf("the focus went to %s", tag)
	}

	s.complete(t, time.Now().Add(-10*time.Minute).UTC().Format(time.RFC3339), "public.order_items")
	b.until(t, `document.querySelector('#freshness').dataset.status === 'incomplete' && document.querySelector('#notice').textContent.includes('public.order_items')`)
	b.accessible(t, "late and incomplete")
	s.complete(t, time.Now().Add(-10*time.Minute).UTC().Format(time.RFC3339))
	b.until(t, `document.querySelector('#freshness').dataset.status === 'late'`)

	if lines := b.complaints(); len(lines) > 0 {
		t.Errorf("the page complains: %v", lines)
	}
}
