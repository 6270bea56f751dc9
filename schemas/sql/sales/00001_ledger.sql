-- The ledger: order headers and lines as last seen, each with the contribution that it last made to the cells.
-- Keys are compared byte by byte (COLLATE "C"), which is the order that the service sorts and locks in.

-- +goose Up
CREATE TABLE millrace.currencies (
    code     text COLLATE "C" PRIMARY KEY,
    exponent smallint NOT NULL CHECK (exponent BETWEEN 0 AND 4),
    factor   numeric NOT NULL CHECK (factor IN (1, 0.1, 0.01, 0.001, 0.0001))
);
COMMENT ON TABLE millrace.currencies IS
    'ISO 4217 currencies whose minor unit is not 1/100. Every other currency has exponent 2. Amounts in the ledger are rounded by it: do not edit.';
COMMENT ON COLUMN millrace.currencies.factor IS 'Minor to major units: 10 to the power of -exponent.';
INSERT INTO millrace.currencies (code, exponent, factor)
SELECT code, 0, 1 FROM unnest(ARRAY['BIF','CLP','DJF','GNF','ISK','JPY','KMF','KRW','PYG','RWF','UGX','UYI','VND','VUV','XAF','XOF','XPF']) AS code
UNION ALL
SELECT code, 3, 0.001 FROM unnest(ARRAY['BHD','IQD','JOD','KWD','LYD','OMR','TND']) AS code
UNION ALL
SELECT code, 4, 0.0001 FROM unnest(ARRAY['CLF','UYW']) AS code;

CREATE TABLE millrace.products (
    product_code text COLLATE "C" PRIMARY KEY,
    seq          bigint NOT NULL,
    ref_seq      bigint NOT NULL,
    gone         boolean NOT NULL,
    name         text NOT NULL,
    category     text NOT NULL
);
COMMENT ON TABLE millrace.products IS
    'Products as last seen. A product that is gone keeps its last name and category, for past sales still show them.';

CREATE TABLE millrace.ledger_orders (
    order_id     text COLLATE "C" PRIMARY KEY,
    known        boolean NOT NULL DEFAULT false,
    seq          bigint NOT NULL DEFAULT 0,
    ref_seq      bigint NOT NULL DEFAULT 0,
    gone         boolean NOT NULL DEFAULT false,
    placed_at    timestamptz,
    status       text NOT NULL DEFAULT '',
    cancelled    boolean NOT NULL DEFAULT false,
    customer_key text COLLATE "C",
    country      text COLLATE "C" NOT NULL DEFAULT 'unknown',
    region       text COLLATE "C" NOT NULL DEFAULT 'unknown',
    currency     text COLLATE "C" NOT NULL DEFAULT '',
    c_cell       timestamptz,
    c_region     text COLLATE "C",
    c_country    text COLLATE "C",
    c_currency   text COLLATE "C",
    c_cancelled  boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);
COMMENT ON TABLE millrace.ledger_orders IS
    'Order headers as last seen. The row is the lock of its order: whoever changes the order or one of its lines holds it.';
COMMENT ON COLUMN millrace.ledger_orders.known IS 'False for a row that exists only because a line names the order.';
COMMENT ON COLUMN millrace.ledger_orders.c_cell IS 'The c_ columns are what the order last added to order_cells: one order in this cell. Null: nothing.';

CREATE TABLE millrace.ledger_lines (
    line_id      text COLLATE "C" PRIMARY KEY,
    order_id     text COLLATE "C" NOT NULL,
    seq          bigint NOT NULL,
    ref_seq      bigint NOT NULL,
    gone         boolean NOT NULL,
    product_code text COLLATE "C" NOT NULL,
    units        bigint NOT NULL,
    unit_price   numeric NOT NULL,
    waiting      boolean NOT NULL,
    c_cell       timestamptz,
    c_region     text COLLATE "C",
    c_country    text COLLATE "C",
    c_product    text COLLATE "C",
    c_currency   text COLLATE "C",
    c_units      bigint NOT NULL DEFAULT 0,
    c_gross      bigint NOT NULL DEFAULT 0,
    c_cancelled  boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80);
COMMENT ON TABLE millrace.ledger_lines IS 'Order lines as last seen. A line that is gone stays, so that an older image of it cannot bring it back.';
COMMENT ON COLUMN millrace.ledger_lines.waiting IS 'The line is not gone and the header of its order has not been seen: it counts nowhere yet.';
COMMENT ON COLUMN millrace.ledger_lines.c_cell IS
    'The c_ columns are what the line last added to cells: one line in this cell, c_units units and c_gross minor units. Null: nothing.';
CREATE INDEX ledger_lines_order ON millrace.ledger_lines (order_id);
CREATE INDEX ledger_lines_waiting ON millrace.ledger_lines (order_id) WHERE waiting;

CREATE TABLE millrace.cells (
    cell            timestamptz NOT NULL,
    region          text COLLATE "C" NOT NULL,
    country         text COLLATE "C" NOT NULL,
    product_code    text COLLATE "C" NOT NULL,
    currency        text COLLATE "C" NOT NULL,
    shard           smallint NOT NULL,
    hour            timestamptz NOT NULL GENERATED ALWAYS AS (date_bin('1 hour', cell, '2000-01-01 00:00:00+00')) STORED,
    lines           bigint NOT NULL,
    cancelled_lines bigint NOT NULL,
    units           bigint NOT NULL,
    cancelled_units bigint NOT NULL,
    gross_minor     bigint NOT NULL,
    cancelled_minor bigint NOT NULL,
    PRIMARY KEY (cell, region, country, product_code, currency, shard)
) WITH (fillfactor = 70);
COMMENT ON TABLE millrace.cells IS
    'Sums of the lines'' contributions per quarter of an hour (UTC). Only the sum over the shards means anything: they keep writers apart.';
CREATE INDEX cells_hour ON millrace.cells (hour);

CREATE TABLE millrace.order_cells (
    cell             timestamptz NOT NULL,
    region           text COLLATE "C" NOT NULL,
    country          text COLLATE "C" NOT NULL,
    currency         text COLLATE "C" NOT NULL,
    shard            smallint NOT NULL,
    hour             timestamptz NOT NULL GENERATED ALWAYS AS (date_bin('1 hour', cell, '2000-01-01 00:00:00+00')) STORED,
    orders           bigint NOT NULL,
    cancelled_orders bigint NOT NULL,
    PRIMARY KEY (cell, region, country, currency, shard)
) WITH (fillfactor = 70);
COMMENT ON TABLE millrace.order_cells IS 'Sums of the orders'' contributions, as cells are of the lines''.';
CREATE INDEX order_cells_hour ON millrace.order_cells (hour);

-- +goose Down
DROP TABLE millrace.order_cells, millrace.cells, millrace.ledger_lines, millrace.ledger_orders, millrace.products, millrace.currencies;
