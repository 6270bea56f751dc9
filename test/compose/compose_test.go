//go:build compose

// Package compose looks through the stack that docker-compose.yml has brought up. run.sh starts it.
package compose

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Where docker-compose.yml publishes what is looked at.
const (
	dashboardURL = "http://127.0.0.1:8080"
	collectURL   = "http://127.0.0.1:8082"
	recommendURL = "http://127.0.0.1:8083"
	shopURL      = "http://127.0.0.1:8086/shop"
	shopOrigin   = "http://localhost:8086" // as the page's own address is printed
	primaryURL   = "postgres://postgres@127.0.0.1:5433/store?sslmode=disable"
	salesURL     = "postgres://millrace@127.0.0.1:5435/millrace?sslmode=disable"
)

// TestOrderAppearsInSales sells a product that nobody else sells, so the demo's own trickle of orders cannot pass for it.
func TestOrderAppearsInSales(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	const units = 7
	product := "E2E_" + uuid.NewString()
	start := time.Now()
	sell(ctx, t, product, units)
	waitFor(ctx, t, func() error {
		got, err := unitsSold(ctx, product)
		if err != nil {
			return err
		}
		if got != units {
			return fmt.Errorf("%d units of the product are sold, want %d", got, units)
		}
		return nil
	})
	t.Logf("from the commit on the primary to /v1/sales: %v", time.Since(start).Round(time.Millisecond))
}

// TestActivityChangesRecommendations compares a shopper who browses with one who does not, at the same moment: what is
// popular may change at any time, but it changes for both.
func TestActivityChangesRecommendations(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	browsing, silent := uuid.NewString(), uuid.NewString()
	first, err := recommended(ctx, silent)
	if err != nil {
		t.Fatal(err)
	}
	if len(first) == 0 {
		t.Fatal("nothing is recommended to a new shopper")
	}
	start := time.Now()
	for _, action := range []string{"view", "add_to_cart"} {
		act(ctx, t, browsing, action, first[0])
	}
	waitFor(ctx, t, func() error {
		before, err := recommended(ctx, silent)
		if err != nil {
			return err
		}
		mine, err := recommended(ctx, browsing)
		if err != nil {
			return err
		}
		after, err := recommended(ctx, silent)
		if err != nil {
			return err
		}
		if !slices.Equal(before, after) || slices.Equal(mine, after) {
			return fmt.Errorf("a shopper with %s in the cart is recommended %v, one who did nothing %v and then %v", first[0], mine, before, after)
		}
		return nil
	})
	t.Logf("from the activity to the answer: %v", time.Since(start).Round(time.Millisecond))
}

func TestPagesAnswer(t *testing.T) {
	for _, page := range []string{dashboardURL + "/", shopURL} {
		if _, err := call(t.Context(), http.MethodGet, page, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestOperatorSeesAllStages: exit code 0 of the status says that nothing is behind.
func TestOperatorSeesAllStages(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	waitFor(ctx, t, func() error {
		cmd := exec.CommandContext(ctx, "docker", "compose", "run", "--rm", "--no-deps", "admin", "status")
		cmd.Dir = "../.."
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("admin status: %w\n%s", err, out)
		}
		t.Logf("admin status:\n%s", out)
		return nil
	})
}

// TestShopMayCallTheServices: the shop's page comes from another origin than the services that it calls.
func TestShopMayCallTheServices(t *testing.T) {
	ctx := t.Context()
	page := exchange(ctx, t, http.MethodGet, shopURL, nil, "")
	session := uuid.NewString()
	for address, body := range map[string]string{
		collectURL + "/v1/activity":          `{"session_id": "` + session + `", "action": "search", "search_term": "bicycle"}`,
		recommendURL + "/v1/recommendations": `{"session_id": "` + session + `"}`,
	} {
		preflight := http.Header{"Origin": {shopOrigin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type"}}
		resp := exchange(ctx, t, http.MethodOptions, address, preflight, "")
		if resp.StatusCode/100 != 2 || resp.Header.Get("Access-Control-Allow-Origin") != shopOrigin ||
			!strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "POST") ||
			!strings.Contains(strings.ToLower(resp.Header.Get("Access-Control-Allow-Headers")), "content-type") {
			t.Errorf("preflight of %s: %s %v", address, resp.Status, resp.Header)
		}
		resp = exchange(ctx, t, http.MethodPost, address, http.Header{"Origin": {shopOrigin}, "Content-Type": {"application/json"}}, body)
		if resp.StatusCode/100 != 2 || resp.Header.Get("Access-Control-Allow-Origin") != shopOrigin {
			t.Errorf("POST to %s: %s %v", address, resp.Status, resp.Header)
		}
		resp = exchange(ctx, t, http.MethodOptions, address, http.Header{"Origin": {"http://elsewhere.example"}, "Access-Control-Request-Method": {"POST"}}, "")
		if allowed := resp.Header.Get("Access-Control-Allow-Origin"); allowed != "" {
			t.Errorf("preflight of %s from elsewhere: %q is allowed", address, allowed)
		}
		called, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if origin, policy := "http://localhost:"+called.Port(), page.Header.Get("Content-Security-Policy"); !strings.Contains(policy, origin) {
			t.Errorf("the page's policy does not let it call %s: %s", origin, policy)
		}
	}
}

// exchange sends a request as a browser might and returns the answer, its body closed.
func exchange(ctx context.Context, t *testing.T, method, address string, header http.Header, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp
}

// sell orders units of a new product in the store's database, as the store itself would.
func sell(ctx context.Context, t *testing.T, product string, units int) {
	t.Helper()
	err := pgx.BeginFunc(ctx, connect(ctx, t, primaryURL), func(tx pgx.Tx) error {
		if err := newProduct(ctx, tx, product); err != nil {
			return err
		}
		_, err := newOrder(ctx, tx, product, units)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func newProduct(ctx context.Context, db execer, product string) error {
	_, err := db.Exec(ctx, `INSERT INTO products (product_code, product_name, product_line, product_scale, product_vendor,
			product_description, quantity_in_stock, buy_price, msrp)
		SELECT $1, $1, min(product_line), '1:10', 'test', 'test', 100, 10, 20 FROM product_lines`, product)
	if err != nil {
		return fmt.Errorf("insert a product: %w", err)
	}
	return nil
}

// newOrder inserts an order of one line and returns its number.
func newOrder(ctx context.Context, tx pgx.Tx, product string, units int) (number int64, err error) {
	err = tx.QueryRow(ctx, `WITH o AS (
			INSERT INTO orders (ordered_at, required_date, status, customer_number, currency)
			SELECT now(), current_date + 7, 'In Process', min(customer_number), 'USD' FROM customers
			RETURNING order_number)
		INSERT INTO order_details (order_number, product_code, quantity_ordered, price_each, order_line_number)
		SELECT order_number, $1, $2, 15.50, 1 FROM o RETURNING order_number`, product, units).Scan(&number)
	if err != nil {
		return 0, fmt.Errorf("insert an order: %w", err)
	}
	return number, nil
}

// unitsSold sums what the dashboard's API says was sold of a product in the last 24 hours.
func unitsSold(ctx context.Context, product string) (int, error) {
	query := url.Values{"product": {product}, "group_by": {"product"}, "format": {"csv"}}
	body, err := call(ctx, http.MethodGet, dashboardURL+"/v1/sales?"+query.Encode(), nil)
	if err != nil {
		return 0, err
	}
	rows, err := csv.NewReader(bytes.NewReader(body)).ReadAll()
	if err != nil {
		return 0, fmt.Errorf("read the sales: %w", err)
	}
	if len(rows) == 0 {
		return 0, fmt.Errorf("the sales have no header")
	}
	column := slices.Index(rows[0], "units")
	if column < 0 {
		return 0, fmt.Errorf("the sales have no column units: %v", rows[0])
	}
	sum := 0
	for _, row := range rows[1:] {
		n, err := strconv.Atoi(row[column])
		if err != nil {
			return 0, fmt.Errorf("read the sales: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// act reports an activity as the storefront's page does.
func act(ctx context.Context, t *testing.T, session, action, product string) {
	t.Helper()
	_, err := call(ctx, http.MethodPost, collectURL+"/v1/activity", map[string]any{
		"event_id": uuid.NewString(), "event_time": time.Now().UTC().Format(time.RFC3339Nano),
		"session_id": session, "action": action, "product_code": product, "quantity": 1,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// recommended returns what a session is recommended, best first.
func recommended(ctx context.Context, session string) ([]string, error) {
	body, err := call(ctx, http.MethodPost, recommendURL+"/v1/recommendations", map[string]any{"session_id": session, "limit": 10})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"recommended_items"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read the recommendations: %w", err)
	}
	ids := make([]string, len(answer.Items))
	for i, item := range answer.Items {
		ids[i] = item.ID
	}
	return ids, nil
}

// call sends a request, with a JSON body unless it is nil, and returns the body of a 2xx answer.
func call(ctx context.Context, method, address string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, address, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, address, resp.Status, answer)
	}
	return answer, nil
}

// waitFor repeats check until it is nil, and fails the test with its last answer when ctx ends.
func waitFor(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}
