//go:build e2e

package dashboard

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

func TestZZShots(t *testing.T) {
	now := time.Now()
	s := open(t, now)
	s.service.deps.Now = time.Now
	s.history(t, now)
	b := openTab(t)
	shot := func(name, query string, w int64, dark bool, js string, age time.Duration) {
		s.complete(t, time.Now().Add(-age).UTC().Format(time.RFC3339Nano))
		scheme := "light"
		if dark {
			scheme = "dark"
		}
		b.scheme(t, scheme)
		p := emulation.SetDeviceMetricsOverrideParams{Width: w, Height: 900, DeviceScaleFactor: 1}
		if _, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, p); err != nil {
			t.Fatal(err)
		}
		b.do(t, chromedp.Navigate(s.URL+"/"+query))
		b.until(t, ready)
		if js != "" {
			b.js(t, js)
		}
		time.Sleep(300 * time.Millisecond)
		fmt.Println(name, b.text(t, `String(document.documentElement.scrollWidth)+" of "+innerWidth`))
		data, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile("/tmp/shots/"+name+".png", data, 0o644)
	}
	shot("light", "", 1280, false, `document.querySelectorAll('g.bar')[12].focus()`, 0)
	shot("dark", "?range=30d&tz=Asia/Kolkata&currency=JPY&table=1", 1280, true, "", 0)
	shot("narrow", "?region=EMEA&category=Ships", 360, false, "", 5*time.Minute)
	shot("narrowdark", "?range=7d&table=1", 360, true, "", 0)
}
