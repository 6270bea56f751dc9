package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

func (r *running) get(t *testing.T, path string) (int, string, http.Header) {
	t.Helper()
	response, err := http.Get(r.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body), response.Header
}

func (r *running) checkout(t testing.TB, body string) (int, string, http.Header) {
	response, err := http.Post(r.URL+"/shop/api/checkout", "application/json", strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, "", nil
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(answer), response.Header
}

func TestPage(t *testing.T) {
	s := start(t, pgtest.Database(t), func(c *Config) {
		c.CollectURL, c.RecommendURL = "https://collect.example:444/base/", "http://reco.example"
	})
	status, body, header := s.get(t, "/shop")
	policy := header.Get("Content-Security-Policy")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") {
		t.Fatalf("got %d %s", status, header.Get("Content-Type"))
	}
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "connect-src 'self' https://collect.example:444 http://reco.example;", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(body, "<style") || strings.Contains(body, "style=") || strings.Contains(body, "onclick") {
		t.Error("the page needs inline styles or scripts")
	}
	kinds := map[string]string{"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
	for _, name := range s.assets() {
		status, body, header := s.get(t, "/shop/"+name)
		ext := name[strings.LastIndexByte(name, '.')+1:]
		if status != 200 || body == "" || !strings.HasPrefix(header.Get("Content-Type"), kinds[ext]) || kinds[ext] == "" {
			t.Errorf("%s: %d %q", name, status, header.Get("Content-Type"))
		}
	}
	if status, body, _ := s.get(t, "/shop/api/config"); status != 200 || !strings.Contains(body, `"collect_url":"https://collect.example:444/base"`) {
		t.Errorf("config: %d %s", status, body)
	}
}

func TestCatalogue(t *testing.T) {
	dsn := pgtest.Database(t)
	s := start(t, dsn, nil)
	conn := pgtest.Connect(t, dsn)
	hidden := query[string](t, conn, "SELECT product_code FROM products WHERE hidden LIMIT 1")
	shown := query[string](t, conn, "SELECT product_code FROM products WHERE NOT hidden LIMIT 1")
	var list struct {
		Products []product
		Pages    int
		Total    int
	}
	load := func(path string) {
		t.Helper()
		status, body, _ := s.get(t, path)
		list.Products = nil
		if err := json.Unmarshal([]byte(body), &list); status != 200 || err != nil {
			t.Fatalf("%s: %d %v %s", path, status, err, body)
		}
	}
	load("/shop/api/products")
	if len(list.Products) != pageSize || list.Pages != 8 || list.Total != query[int](t, conn, "SELECT count(*) FROM products WHERE NOT hidden") {
		t.Errorf("%d products, %d pages, %d in all", len(list.Products), list.Pages, list.Total)
	}
	load("/shop/api/products?line=Tall+Ships&q=clipper&currency=JPY")
	for _, p := range list.Products {
		if p.Line != "Tall Ships" || !strings.Contains(p.Name, "Clipper") || p.Currency != "JPY" || !strings.HasSuffix(p.Price, "0.00") {
			t.Errorf("found %+v", p)
		}
	}
	if len(list.Products) == 0 {
		t.Error("no clippers")
	}
	load("/shop/api/products?codes=" + hidden + "," + shown + ",nonsense")
	if len(list.Products) != 1 || list.Products[0].Code != shown {
		t.Errorf("by codes: %+v", list.Products)
	}
	load("/shop/api/products?q=%25") // a wildcard for LIKE is a character here
	if len(list.Products) != 0 {
		t.Errorf("%d products contain %%", len(list.Products))
	}
	for path, want := range map[string]int{
		"/shop/api/products/" + shown: 200, "/shop/api/products/" + hidden: 404, "/shop/api/products/none": 404,
		"/shop/api/products/%00": 404, "/shop/api/products?page=0": 422, "/shop/api/products?page=x": 422,
		"/shop/api/products?q=%00": 422, "/shop/api/products?q=" + strings.Repeat("x", 101): 422, "/shop/api/products?currency=EURO": 422,
		"/shop/api/products?codes=" + strings.Repeat("a,", 60): 422, "/shop/api/products?page=999": 200,
	} {
		if status, body, _ := s.get(t, path); status != want {
			t.Errorf("%s: got %d, want %d: %s", path, status, want, body)
		}
	}
	status, body, _ := s.get(t, "/shop/api/customers")
	if status != 200 || strings.Count(body, "customer_number") < 20 || strings.Contains(body, "name") || strings.Contains(body, "@") {
		t.Errorf("customers: %d %s", status, body)
	}
}

func TestCheckout(t *testing.T) {
	dsn := pgtest.Database(t)
	s := start(t, dsn, nil)
	conn := pgtest.Connect(t, dsn)
	exec(t, conn, "UPDATE products SET hidden = false, quantity_in_stock = 100, msrp = 29.99 WHERE product_code IN ('STM-001', 'SHP-001')")
	tokyo := query[int](t, conn, "SELECT min(customer_number) FROM customers WHERE country = 'Japan'")

	status, body, _ := s.checkout(t, fmt.Sprintf(`{"customer_number":%d,"session_id":"s","items":[{"product_code":"STM-001","quantity":2},{"product_code":"SHP-001","quantity":99}]}`, tokyo))
	var done checkoutAnswer
	if err := json.Unmarshal([]byte(body), &done); status != http.StatusCreated || err != nil {
		t.Fatalf("got %d %s", status, body)
	}
	if done.Currency != "JPY" || done.Total != "454500.00" { // 101 at 4,500 yen
		t.Errorf("got %+v", done)
	}
	got := query[string](t, conn, `SELECT concat_ws(' ', o.customer_number, o.status, o.currency, sum(d.quantity_ordered * d.price_each), count(*), max(d.order_line_number))
		FROM orders o JOIN order_details d USING (order_number) WHERE order_number = $1 GROUP BY order_number`, done.Number)
	if want := fmt.Sprintf("%d In Process JPY 454500.00 2 2", tokyo); got != want {
		t.Errorf("in the store: %q, want %q", got, want)
	}
	if left := query[string](t, conn, "SELECT string_agg(quantity_in_stock::text, ' ' ORDER BY product_code) FROM products WHERE product_code IN ('STM-001', 'SHP-001')"); left != "1 98" {
		t.Errorf("stock is %s", left)
	}

	status, body, _ = s.checkout(t, `{"session_id":"s","items":[{"product_code":"SHP-001","quantity":1}]}`) // the last one, by a guest
	if status != http.StatusCreated || !strings.Contains(body, `"USD"`) {
		t.Errorf("guest: %d %s", status, body)
	}
	orders := query[int](t, conn, "SELECT count(*) FROM orders")
	status, body, header := s.checkout(t, `{"session_id":"s","items":[{"product_code":"STM-001","quantity":1},{"product_code":"SHP-001","quantity":1}]}`)
	if status != http.StatusConflict || !strings.Contains(body, `"body.items[1].quantity"`) || header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("out of stock: %d %s", status, body)
	}
	if query[int](t, conn, "SELECT quantity_in_stock FROM products WHERE product_code = 'STM-001'") != 98 || query[int](t, conn, "SELECT count(*) FROM orders") != orders {
		t.Error("an order that was refused left traces")
	}
	if s.value(t, "millrace_demo_orders_total", "checkout") != 2 {
		t.Error("the metric of orders is wrong")
	}
}

func TestCheckoutRefusesBadInput(t *testing.T) {
	dsn := pgtest.Database(t)
	s := start(t, dsn, nil)
	conn := pgtest.Connect(t, dsn)
	hidden := query[string](t, conn, "SELECT product_code FROM products WHERE hidden LIMIT 1")
	before := query[int](t, conn, "SELECT count(*) FROM orders")
	one := `[{"product_code":"STM-001","quantity":1}]`
	for name, c := range map[string]struct {
		body   string
		status int
		field  string
	}{
		"empty":          {``, 400, "body"},
		"not json":       {`{"secret-input`, 400, "body"},
		"two values":     {`{"session_id":"s","items":` + one + `}{}`, 400, "body"},
		"unknown key":    {`{"session_id":"s","items":` + one + `,"price":"0.01"}`, 400, "body"},
		"no session":     {`{"items":` + one + `}`, 422, "body.session_id"},
		"long session":   {`{"session_id":"` + strings.Repeat("x", 101) + `","items":` + one + `}`, 422, "body.session_id"},
		"no items":       {`{"session_id":"s","items":[]}`, 422, "body.items"},
		"no such person": {`{"session_id":"s","customer_number":99999999,"items":` + one + `}`, 422, "body.customer_number"},
		"negative":       {`{"session_id":"s","customer_number":-1,"items":` + one + `}`, 422, "body.customer_number"},
		"text number":    {`{"session_id":"s","customer_number":"secret-input","items":` + one + `}`, 422, "body.customer_number"},
		"zero":           {`{"session_id":"s","items":[{"product_code":"STM-001","quantity":0}]}`, 422, "body.items[0].quantity"},
		"too many":       {`{"session_id":"s","items":[{"product_code":"STM-001","quantity":100}]}`, 422, "body.items[0].quantity"},
		"fraction":       {`{"session_id":"s","items":[{"product_code":"STM-001","quantity":1.5}]}`, 422, "quantity"},
		"twice":          {`{"session_id":"s","items":[{"product_code":"STM-001","quantity":1},{"product_code":"STM-001","quantity":1}]}`, 422, "body.items[1].product_code"},
		"unknown":        {`{"session_id":"s","items":[{"product_code":"secret-input","quantity":1}]}`, 422, "body.items[0].product_code"},
		"hidden":         {`{"session_id":"s","items":[{"product_code":"` + hidden + `","quantity":1}]}`, 422, "body.items[0].product_code"},
		"nul":            {`{"session_id":"s","items":[{"product_code":"\u0000","quantity":1}]}`, 422, "body.items[0].product_code"},
		"large":          {`{"session_id":"s","items":` + strings.Repeat(" ", maxBody) + one + `}`, 413, ""},
	} {
		status, body, header := s.checkout(t, c.body)
		if status != c.status || !strings.Contains(body, c.field) || header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %d %s, want %d and %q", name, status, body, c.status, c.field)
		}
		if strings.Contains(body, "secret-input") || strings.Contains(s.logs.String(), "secret-input") {
			t.Errorf("%s: the input is repeated", name)
		}
	}
	response, err := http.Post(s.URL+"/shop/api/checkout", "text/plain", strings.NewReader(`{"session_id":"s","items":`+one+`}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a form of another site could order: %d", response.StatusCode)
	}
	if query[int](t, conn, "SELECT count(*) FROM orders") != before {
		t.Error("bad input became an order")
	}
}

func TestStockIsNeverSoldTwice(t *testing.T) {
	dsn := pgtest.Database(t)
	s := start(t, dsn, nil)
	conn := pgtest.Connect(t, dsn)
	exec(t, conn, "UPDATE products SET hidden = false, quantity_in_stock = 25 WHERE product_code IN ('STM-001', 'SHP-001')")
	var group sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	for i := range 20 {
		items := `{"product_code":"STM-001","quantity":3},{"product_code":"SHP-001","quantity":3}`
		if i%2 == 1 { // the other way round: orders must not wait for each other in a circle
			items = `{"product_code":"SHP-001","quantity":3},{"product_code":"STM-001","quantity":3}`
		}
		group.Go(func() {
			status, _, _ := s.checkout(t, `{"session_id":"s","items":[`+items+`]}`)
			mu.Lock()
			defer mu.Unlock()
			count[status]++
		})
	}
	group.Wait()
	if count[http.StatusCreated] != 8 || count[http.StatusConflict] != 12 {
		t.Errorf("answers: %v, want 8 orders and 12 conflicts", count)
	}
	if left := query[int](t, conn, "SELECT sum(quantity_in_stock) FROM products WHERE product_code IN ('STM-001', 'SHP-001')"); left != 2 {
		t.Errorf("%d left in stock, want 2", left)
	}
}
