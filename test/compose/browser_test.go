//go:build compose

package compose

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/millrace-io/millrace/test/realparts"
)

// TestShopInABrowser: the page shows recommendations and reports a view, both across origins, and the browser has
// nothing to complain of.
func TestShopInABrowser(t *testing.T) {
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(realparts.Chromium(t)))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	defer cancel()
	var mu sync.Mutex
	var console []string
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(func(e any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			console = append(console, e.ExceptionDetails.Text)
		case *log.EventEntryAdded: // refused by a policy, not found, and the like
			console = append(console, e.Entry.Text+" "+e.Entry.URL)
		}
	}))
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil { // starts the browser
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	until := func(js string) {
		t.Helper()
		if _, err := chromedp.Run(ctx, chromedp.Poll[bool](js)); err != nil {
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("waiting for %s: %v; the browser says: %v", js, err, console)
		}
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(shopOrigin+"/shop")); err != nil {
		t.Fatal(err)
	}
	until(`!document.querySelector('#recommended').hidden && document.querySelectorAll('#recommended a').length > 0`)
	if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](`document.querySelector('.grid a').click()`)); err != nil {
		t.Fatal(err)
	}
	until(`performance.getEntriesByType('resource').some(e => e.name === 'http://localhost:8082/v1/activity' && e.responseStatus === 202)`)
	mu.Lock()
	defer mu.Unlock()
	if len(console) > 0 {
		t.Errorf("the browser complains: %v", console)
	}
}
