package dashboard

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/services/dashboard/internal/calendar"
)

// wantsCSV tells whether the client prefers text/csv to JSON; JSON is what those get that do not care.
func wantsCSV(r *http.Request) bool {
	var csv, other float64
	for entry := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, params, err := mime.ParseMediaType(entry)
		if err != nil {
			continue
		}
		weight, err := strconv.ParseFloat(params["q"], 64)
		if err != nil {
			weight = 1
		}
		switch kind {
		case "text/csv":
			csv = max(csv, weight)
		case "application/json":
			other = max(other, weight)
		}
	}
	return csv > other
}

func csvName(q query) string {
	const form = "20060102T1504"
	grain := map[calendar.Grain]string{calendar.Hour: "hour", calendar.Day: "day"}[q.grain]
	return fmt.Sprintf("sales-%s-%s-by-%s.csv", q.from.Format(form), q.to.Format(form), grain)
}

// salesCSV has the rows of the JSON answer, and in the last two columns up to when they are complete: a file that
// was saved still says it.
func salesCSV(a *salesAnswer, q query) ([]byte, error) {
	header := []string{"start", "end", "partial"}
	for _, d := range q.by {
		header = append(header, d.columns()...)
	}
	header = append(header, "currency", "lines", "units", "gross", "net", "cancelled")
	if q.countsOrders() {
		header = append(header, "orders", "cancelled_orders")
	}
	header = append(header, "valid_through", "complete")
	through := ""
	if a.ValidThrough != nil {
		through = a.ValidThrough.Format(time.RFC3339Nano)
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if err := w.Write(header); err != nil {
		return nil, err
	}
	for _, r := range a.Rows {
		record := []string{r.Start.Format(time.RFC3339), r.End.Format(time.RFC3339), strconv.FormatBool(r.Partial)}
		for _, v := range r.fields() {
			record = append(record, harmless(*v))
		}
		record = append(record, r.Currency, strconv.FormatInt(r.Lines, 10), strconv.FormatInt(r.Units, 10), r.Gross, r.Net, r.Cancelled)
		if q.countsOrders() {
			record = append(record, strconv.FormatInt(*r.Orders, 10), strconv.FormatInt(*r.CancelledOrders, 10))
		}
		if err := w.Write(append(record, through, strconv.FormatBool(a.Complete))); err != nil {
			return nil, err
		}
	}
	w.Flush()
	return out.Bytes(), w.Error()
}

// harmless puts an apostrophe before text that a spreadsheet would run as a formula.
func harmless(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}
