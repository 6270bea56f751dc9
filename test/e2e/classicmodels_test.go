//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// classicTables are the well-known sample database's tables in PostgreSQL, names in lower case.
const classicTables = `
CREATE TABLE offices (officecode text PRIMARY KEY, city text NOT NULL, phone text NOT NULL, addressline1 text NOT NULL, addressline2 text, state text, country text NOT NULL, postalcode text NOT NULL, territory text NOT NULL);
CREATE TABLE employees (employeenumber int PRIMARY KEY, lastname text NOT NULL, firstname text NOT NULL, extension text NOT NULL, email text NOT NULL, officecode text NOT NULL REFERENCES offices, reportsto int, jobtitle text NOT NULL);
CREATE TABLE customers (customernumber int PRIMARY KEY, customername text NOT NULL, contactlastname text NOT NULL, contactfirstname text NOT NULL, phone text NOT NULL, addressline1 text NOT NULL, addressline2 text, city text NOT NULL, state text, postalcode text, country text NOT NULL, salesrepemployeenumber int REFERENCES employees, creditlimit numeric(10,2));
CREATE TABLE productlines (productline text PRIMARY KEY, textdescription text, htmldescription text, image bytea);
CREATE TABLE products (productcode text PRIMARY KEY, productname text NOT NULL, productline text NOT NULL REFERENCES productlines, productscale text NOT NULL, productvendor text NOT NULL, productdescription text NOT NULL, quantityinstock smallint NOT NULL, buyprice numeric(10,2) NOT NULL, msrp numeric(10,2) NOT NULL);
CREATE TABLE orders (ordernumber int PRIMARY KEY, orderdate date NOT NULL, requireddate date NOT NULL, shippeddate date, status text NOT NULL, comments text, customernumber int NOT NULL REFERENCES customers);
CREATE TABLE orderdetails (ordernumber int NOT NULL REFERENCES orders ON UPDATE CASCADE ON DELETE CASCADE, productcode text NOT NULL REFERENCES products, quantityordered int NOT NULL, priceeach numeric(10,2) NOT NULL, orderlinenumber smallint NOT NULL, PRIMARY KEY (ordernumber, productcode));
CREATE PUBLICATION millrace FOR TABLE offices, employees, customers, productlines, products, orders, orderdetails;
`

// classicCells is the GROUP BY over the source: territory of the sales representative's office, else unknown; a date is
// midnight UTC.
const classicCells = `
SELECT to_char(o.orderdate, 'YYYY-MM-DD "00"'), coalesce(f.territory, 'unknown'), c.country, p.productline, p.productcode, p.productname, 'USD',
       count(*), sum(d.quantityordered), round(sum(d.quantityordered * d.priceeach), 4),
       round(coalesce(sum(d.quantityordered * d.priceeach) FILTER (WHERE o.status <> 'Cancelled'), 0), 4),
       round(coalesce(sum(d.quantityordered * d.priceeach) FILTER (WHERE o.status = 'Cancelled'), 0), 4)
  FROM orderdetails d JOIN orders o USING (ordernumber) JOIN products p USING (productcode) JOIN customers c USING (customernumber)
  LEFT JOIN employees e ON e.employeenumber = c.salesrepemployeenumber LEFT JOIN offices f USING (officecode)
 GROUP BY o.orderdate, f.territory, c.country, p.productline, p.productcode, p.productname`

const classicOrders = `
SELECT to_char(o.orderdate, 'YYYY-MM-DD "00"'), coalesce(f.territory, 'unknown'), c.country, 'USD', count(*), count(*) FILTER (WHERE o.status = 'Cancelled')
  FROM orders o JOIN customers c USING (customernumber)
  LEFT JOIN employees e ON e.employeenumber = c.salesrepemployeenumber LEFT JOIN offices f USING (officecode)
 GROUP BY o.orderdate, f.territory, c.country`

func (p *platform) classicEqual(t *testing.T, when string) {
	t.Helper()
	p.quiet(t, time.Minute)
	p.equal(t, "classic models, "+when, classicCells, salesCells)
	p.equal(t, "classic models, "+when+", orders", classicOrders, salesOrders)
}

// Real input 1, by separate processes: half of it is there when capture starts, half arrives afterwards.
func TestClassicModels(t *testing.T) {
	dump := data(t, "classicmodels/mysqlsampledatabase.sql")
	p := newSource(t, classicTables)
	loadDump(t, p.source, dump, "offices", "employees", "customers")
	p.runProcesses(t, "classicmodels", "cdc", "enrich", "aggregate")
	loadDump(t, p.source, dump, "productlines", "products", "orders", "orderdetails")
	p.classicEqual(t, "as loaded")
	p.changeClassic(t)
	p.classicEqual(t, "after 200 changes")
	p.noPersonalDataInLogs(t)
}

// The same in one process, everything there when it starts.
func TestClassicModelsStandalone(t *testing.T) {
	dump := data(t, "classicmodels/mysqlsampledatabase.sql")
	p := newSource(t, classicTables)
	loadDump(t, p.source, dump, "offices", "employees", "customers", "productlines", "products", "orders", "orderdetails")
	p.runStandalone(t, "classicmodels")
	p.classicEqual(t, "as loaded")
	p.changeClassic(t)
	p.classicEqual(t, "after 200 changes")
}

// changeClassic makes 200 random changes of every kind that a shop's database sees.
func (p *platform) changeClassic(t *testing.T) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	const anyLine = "(SELECT ordernumber, productcode FROM orderdetails ORDER BY md5(ordernumber::text || productcode || %d::text) LIMIT 1)"
	const anyOrder = "(SELECT ordernumber FROM orders ORDER BY md5(ordernumber::text || %d::text) LIMIT 1)"
	const anyCustomer = "(SELECT customernumber FROM customers ORDER BY md5(customernumber::text || %d::text) LIMIT 1)"
	const freeProduct = "(SELECT productcode FROM products x WHERE NOT EXISTS (SELECT FROM orderdetails y WHERE y.ordernumber = d.ordernumber AND y.productcode = x.productcode) ORDER BY md5(productcode || %d::text) LIMIT 1)"
	kinds := []func(n int) string{
		func(n int) string {
			return fmt.Sprintf("UPDATE orderdetails SET quantityordered = %d WHERE (ordernumber, productcode) = "+anyLine, 1+r.IntN(99), n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE orderdetails SET priceeach = %d.%02d WHERE (ordernumber, productcode) = "+anyLine, r.IntN(300), r.IntN(100), n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE orders SET status = 'Cancelled' WHERE ordernumber = "+anyOrder, n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE orders SET status = 'Shipped' WHERE ordernumber = "+anyOrder, n)
		},
		func(n int) string {
			return fmt.Sprintf("DELETE FROM orderdetails WHERE (ordernumber, productcode) = "+anyLine, n)
		},
		func(n int) string { return fmt.Sprintf("DELETE FROM orders WHERE ordernumber = "+anyOrder, n) },
		func(n int) string {
			return fmt.Sprintf("UPDATE orders SET ordernumber = %d WHERE ordernumber = "+anyOrder, 900000+n, n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE orderdetails d SET productcode = "+freeProduct+" WHERE (ordernumber, productcode) = "+anyLine, n, n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE orderdetails d SET ordernumber = o.ordernumber FROM orders o WHERE o.ordernumber = "+anyOrder+
				" AND (d.ordernumber, d.productcode) = "+anyLine+" AND NOT EXISTS (SELECT FROM orderdetails y WHERE y.ordernumber = o.ordernumber AND y.productcode = d.productcode)", n, n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE orders SET orderdate = orderdate + %d WHERE ordernumber = "+anyOrder, r.IntN(60)-30, n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE orders SET customernumber = "+anyCustomer+" WHERE ordernumber = "+anyOrder, n, n)
		},
		func(n int) string {
			return fmt.Sprintf("UPDATE products SET productname = 'Renamed %d', productline = 'Planes' WHERE productcode = (SELECT productcode FROM products ORDER BY md5(productcode || %d::text) LIMIT 1)", n, n)
		},
		func(n int) string {
			return fmt.Sprintf("WITH o AS (INSERT INTO orders SELECT %d, '2005-06-01', '2005-06-09', NULL, 'In Process', NULL, "+anyCustomer+
				" RETURNING ordernumber) INSERT INTO orderdetails SELECT o.ordernumber, productcode, -%d, 10.05, 1 FROM o, products ORDER BY md5(productcode || %d::text) LIMIT 3", 800000+n, n, 1+r.IntN(9), n)
		},
	}
	for n := range 200 {
		sql := kinds[r.IntN(len(kinds))](n)
		if _, err := p.source.Exec(t.Context(), sql, pgx.QueryExecModeExec); err != nil {
			t.Fatalf("change %d: %v in %s", n, err, sql)
		}
	}
}

// noPersonalDataInLogs looks for names, phones and addresses of real customers in what the programs wrote.
func (p *platform) noPersonalDataInLogs(t *testing.T) {
	t.Helper()
	personal := rows(t, p.source, "SELECT contactlastname || ' ' || contactfirstname FROM customers UNION SELECT phone FROM customers UNION SELECT addressline1 FROM customers")
	for _, s := range p.programs {
		text := s.Tail(1 << 30)
		for v := range personal {
			if len(v) > 6 && strings.Contains(text, v) {
				t.Errorf("%s wrote personal data into its log", s.Name)
			}
		}
	}
}
