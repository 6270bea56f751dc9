package dashboard

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	page := s.get(t, "/")
	csp := page.header.Get("Content-Security-Policy")
	if page.status != http.StatusOK || page.header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("%d %v", page.status, page.header)
	}
	if regexp.MustCompile(`<script>|<style|\sstyle=|\son[a-z]+=|(src|href)="https?:`).MatchString(page.body) {
		t.Error("the page has something inline or foreign, which its own policy refuses")
	}
	for _, id := range []string{"region", "country", "category", "product", "currency", "grain", "tz", "range"} {
		if !strings.Contains(page.body, `id="`+id+`"`) {
			t.Errorf("no #%s", id)
		}
	}
	files := regexp.MustCompile(`/dashboard/[a-z]+\.(js|css)`).FindAllString(page.body, -1)
	if len(files) < 2 {
		t.Errorf("the page loads %v", files)
	}
	for seen := 0; seen < len(files); seen++ {
		r := s.get(t, files[seen])
		if r.status != http.StatusOK || !strings.HasPrefix(r.header.Get("Content-Type"), "text/") {
			t.Errorf("%s: %d", files[seen], r.status)
		}
		if again := s.get(t, files[seen], "If-None-Match", r.header.Get("ETag")); again.status != http.StatusNotModified {
			t.Errorf("%s again: %d", files[seen], again.status)
		}
		for _, m := range regexp.MustCompile(`from '\./([a-z]+\.js)'`).FindAllStringSubmatch(r.body, -1) {
			if f := "/dashboard/" + m[1]; !slices.Contains(files, f) {
				files = append(files, f)
			}
		}
	}
}

func TestOpenAPI(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	doc := decode[struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}](t, s.get(t, "/openapi.json").body)
	for _, path := range []string{"/v1/sales", "/v1/sales/summary", "/v1/sales/live", "/v1/freshness", "/v1/dimensions"} {
		if doc.Paths[path]["get"] == nil {
			t.Errorf("%s is not described", path)
		}
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	for _, name := range []string{"from", "to", "tz", "grain", "group_by", "region", "country", "category", "product", "format"} {
		if !strings.Contains(string(doc.Paths["/v1/sales"]["get"]), `"name":"`+name+`"`) {
			t.Errorf("%s is not described", name)
		}
	}
}

func TestSummary(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	fill(t, s)
	s.sell(t,
		sold{"2026-03-09T12:00Z", "EMEA", "France", "A1", "EUR", 1, 1, 5000, 0, 0}, // in the same minutes
		sold{"2026-03-09T12:30Z", "EMEA", "France", "A1", "EUR", 1, 1, 700, 0, 0},  // later in that hour
		sold{"2026-03-03T12:15Z", "EMEA", "France", "A1", "EUR", 1, 1, 40000, 0, 0})
	a := decode[summaryAnswer](t, s.get(t, "/v1/sales/summary?from=2026-03-10&to=2026-03-11&limit=1").body)
	net := func(list []measures) string {
		var out []string
		for _, m := range list {
			out = append(out, m.Currency+" "+m.Net)
		}
		return strings.Join(out, " ")
	}
	for name, c := range map[string]struct{ got, want string }{
		"totals":    {net(a.Totals), "EUR 1007.50 JPY 1999 KWD 0.000"},
		"current":   {net(a.Comparison.Current.Totals), "EUR 1007.50 JPY 1999 KWD 0.000"},
		"before":    {net(a.Comparison.Before.Totals), "EUR 400.00"},
		"so far":    {net(a.Running.SoFar), "EUR 1000.00 KWD 0.000"},
		"elapsed":   {net(a.Running.Elapsed.Totals), "EUR 1000.00"},
		"yesterday": {net(a.Running.Yesterday.Totals), "EUR 50.00"},
		"last week": {net(a.Running.LastWeek.Totals), "EUR 400.00"},
		"product":   {*a.TopProducts[0].ProductCode + " " + a.TopProducts[0].Net, "B2 997.00"},
		"region":    {*a.TopRegions[0].Region + " " + a.TopRegions[0].Net, "EMEA 1007.50"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
	if len(a.TopProducts) != 3 || a.Comparison.Days != 7 || !a.Comparison.Current.To.Equal(at("2026-03-10T12:30:00Z")) {
		t.Errorf("%+v", a)
	}
	d := decode[dimensionsAnswer](t, s.get(t, "/v1/dimensions").body)
	if strings.Join(d.Regions, " ") != "APAC EMEA" || len(d.Countries) != 4 || strings.Join(d.Categories, " ") != "Cars Ships" || len(d.Products) != 2 || strings.Join(d.Currencies, " ") != "EUR JPY KWD" {
		t.Errorf("dimensions: %+v", d)
	}
}

// TestSameAsTheViews compares with what people and BI tools read.
func TestSameAsTheViews(t *testing.T) {
	s := open(t, at("2026-03-10T12:40:05Z"))
	fill(t, s)
	rows, err := s.conn.Query(t.Context(), `SELECT hour::text || category || currency || sum(lines) || '/' || sum(units) || '/' || sum(gross) || '/' || sum(net) FROM millrace.sales_hourly GROUP BY hour, category, currency`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		want[row] = true
	}
	rows.Close()
	for _, r := range s.ask(t, "group_by", "category").Rows {
		row := r.Start.Format("2006-01-02 15:04:05+00") + *r.Category + r.Currency + jsonNumber(r.Lines) + "/" + jsonNumber(r.Units) + "/" + r.Gross + "/" + r.Net
		if !want[row] {
			t.Errorf("%s is not in the views", row)
		}
		delete(want, row)
	}
	if len(want) > 0 {
		t.Errorf("only in the views: %v", want)
	}
}

func jsonNumber(n int64) string {
	text, _ := json.Marshal(n) // a number always encodes
	return string(text)
}
