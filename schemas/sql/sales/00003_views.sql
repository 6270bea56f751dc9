-- What people and BI tools read. Columns are a promise: new ones are added at the end.

-- +goose Up
CREATE VIEW millrace.sales_quarter_hourly AS
SELECT s.cell AS quarter, s.hour,
       s.region COLLATE "default" AS region, s.country COLLATE "default" AS country,
       coalesce(p.category, 'unknown') AS category,
       s.product_code COLLATE "default" AS product_code, coalesce(p.name, 'unknown') AS product_name,
       s.currency COLLATE "default" AS currency,
       s.lines, s.units,
       s.gross_minor * coalesce(c.factor, 0.01) AS gross,
       (s.gross_minor - s.cancelled_minor) * coalesce(c.factor, 0.01) AS net,
       s.cancelled_minor * coalesce(c.factor, 0.01) AS cancelled,
       s.cancelled_lines, s.cancelled_units
FROM (SELECT cell, hour, region, country, product_code, currency,
             sum(lines)::bigint AS lines, sum(cancelled_lines)::bigint AS cancelled_lines,
             sum(units)::bigint AS units, sum(cancelled_units)::bigint AS cancelled_units,
             sum(gross_minor) AS gross_minor, sum(cancelled_minor) AS cancelled_minor
      FROM millrace.cells
      GROUP BY cell, hour, region, country, product_code, currency
      HAVING sum(lines) <> 0) AS s
LEFT JOIN millrace.products AS p USING (product_code)
LEFT JOIN millrace.currencies AS c ON c.code = s.currency;
COMMENT ON VIEW millrace.sales_quarter_hourly IS
    'As sales_hourly, per quarter of an hour: for time zones whose offset is not a whole hour.';

CREATE VIEW millrace.sales_hourly AS
SELECT s.hour,
       s.region COLLATE "default" AS region, s.country COLLATE "default" AS country,
       coalesce(p.category, 'unknown') AS category,
       s.product_code COLLATE "default" AS product_code, coalesce(p.name, 'unknown') AS product_name,
       s.currency COLLATE "default" AS currency,
       s.lines, s.units,
       s.gross_minor * coalesce(c.factor, 0.01) AS gross,
       (s.gross_minor - s.cancelled_minor) * coalesce(c.factor, 0.01) AS net,
       s.cancelled_minor * coalesce(c.factor, 0.01) AS cancelled,
       s.cancelled_lines, s.cancelled_units
FROM (SELECT hour, region, country, product_code, currency,
             sum(lines)::bigint AS lines, sum(cancelled_lines)::bigint AS cancelled_lines,
             sum(units)::bigint AS units, sum(cancelled_units)::bigint AS cancelled_units,
             sum(gross_minor) AS gross_minor, sum(cancelled_minor) AS cancelled_minor
      FROM millrace.cells
      GROUP BY hour, region, country, product_code, currency
      HAVING sum(lines) <> 0) AS s
LEFT JOIN millrace.products AS p USING (product_code)
LEFT JOIN millrace.currencies AS c ON c.code = s.currency;
COMMENT ON VIEW millrace.sales_hourly IS
    'Sales by the hour (UTC) in which the order was placed. A row sums the order lines that exist in the source now; corrections and cancellations restate the hour of the order, however late they come. Rows without a line do not show. Never add amounts of different currencies.';
COMMENT ON COLUMN millrace.sales_hourly.hour IS 'Start of the hour, UTC.';
COMMENT ON COLUMN millrace.sales_hourly.region IS 'Sales territory of the order, fixed when it was first known; ''unknown'' until then.';
COMMENT ON COLUMN millrace.sales_hourly.country IS 'Country of the order, fixed when it was first known; ''unknown'' until then.';
COMMENT ON COLUMN millrace.sales_hourly.category IS 'Category that the product has now; ''unknown'' if the product was never seen.';
COMMENT ON COLUMN millrace.sales_hourly.product_name IS 'Name that the product has now; ''unknown'' if the product was never seen.';
COMMENT ON COLUMN millrace.sales_hourly.currency IS 'ISO 4217 code of the order.';
COMMENT ON COLUMN millrace.sales_hourly.lines IS 'All order lines, those of cancelled orders and returns included.';
COMMENT ON COLUMN millrace.sales_hourly.units IS 'Units of all lines; returns are negative.';
COMMENT ON COLUMN millrace.sales_hourly.gross IS 'Amount of all lines, in major units; each line is rounded once to the currency''s minor unit, half away from zero.';
COMMENT ON COLUMN millrace.sales_hourly.net IS 'gross - cancelled: the amount of lines whose order is not cancelled.';
COMMENT ON COLUMN millrace.sales_hourly.cancelled IS 'The part of gross whose order is cancelled.';
COMMENT ON COLUMN millrace.sales_hourly.cancelled_lines IS 'The part of lines whose order is cancelled: lines - cancelled_lines goes with net.';
COMMENT ON COLUMN millrace.sales_hourly.cancelled_units IS 'The part of units whose order is cancelled: units - cancelled_units goes with net.';

CREATE VIEW millrace.sales_orders_quarter_hourly AS
SELECT cell AS quarter, hour, region COLLATE "default" AS region, country COLLATE "default" AS country, currency COLLATE "default" AS currency,
       sum(orders)::bigint AS orders, sum(cancelled_orders)::bigint AS cancelled_orders
FROM millrace.order_cells
GROUP BY cell, hour, order_cells.region, order_cells.country, order_cells.currency
HAVING sum(orders) <> 0;
COMMENT ON VIEW millrace.sales_orders_quarter_hourly IS
    'As sales_orders_hourly, per quarter of an hour: for time zones whose offset is not a whole hour.';

CREATE VIEW millrace.sales_orders_hourly AS
SELECT hour, region COLLATE "default" AS region, country COLLATE "default" AS country, currency COLLATE "default" AS currency,
       sum(orders)::bigint AS orders, sum(cancelled_orders)::bigint AS cancelled_orders
FROM millrace.order_cells
GROUP BY hour, order_cells.region, order_cells.country, order_cells.currency
HAVING sum(orders) <> 0;
COMMENT ON VIEW millrace.sales_orders_hourly IS
    'Orders by the hour (UTC) in which they were placed: each order that exists in the source now counts once, with or without lines. It has no product, since orders do not add up over products.';
COMMENT ON COLUMN millrace.sales_orders_hourly.orders IS 'All orders, cancelled ones included.';
COMMENT ON COLUMN millrace.sales_orders_hourly.cancelled_orders IS 'The part of orders that is cancelled.';

CREATE VIEW millrace.sales_progress AS
SELECT sink, valid_through, source_lsn, incomplete, updated_at FROM millrace.sink_progress;
COMMENT ON VIEW millrace.sales_progress IS 'How fresh the totals are, per sink (this database is the sink ''postgres''). No row: nothing is complete yet.';
COMMENT ON COLUMN millrace.sales_progress.valid_through IS 'Everything that the source committed up to here is in the totals, except for tables in incomplete. Never goes back.';
COMMENT ON COLUMN millrace.sales_progress.source_lsn IS 'The same as a position of the source.';
COMMENT ON COLUMN millrace.sales_progress.incomplete IS 'Source tables that are stopped, and input partitions of this sink that are, so that their changes may be missing.';
COMMENT ON COLUMN millrace.sales_progress.updated_at IS 'When this row was written.';

-- +goose Down
DROP VIEW millrace.sales_progress, millrace.sales_orders_hourly, millrace.sales_orders_quarter_hourly, millrace.sales_hourly, millrace.sales_quarter_hourly;
