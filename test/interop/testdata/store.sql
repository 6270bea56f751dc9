-- What a store keeps, in every kind of type that a sink has to make sense of.
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped');
CREATE DOMAIN quantity AS integer CHECK (VALUE >= 0);

CREATE TABLE kinds (
	id bigint PRIMARY KEY,
	flag boolean, small smallint, whole integer, big bigint, n quantity,
	single real, twice double precision,
	price numeric(12,3), wide numeric(38,10), free numeric,
	day date, moment timestamptz, wall timestamp, clock time,
	name text, code varchar(40), fixed char(8),
	raw bytea, token uuid, doc json, body jsonb, state order_status,
	tags text[], numbers integer[], span interval, zoned timetz,
	host inet, net cidr, mac macaddr, bits bit(5), more bit varying(9), cost money,
	page xml, spread int4range
);

CREATE TABLE items (
	order_number integer, line smallint, product text NOT NULL, quantity integer NOT NULL, price numeric(10,2) NOT NULL,
	PRIMARY KEY (order_number, line)
);

CREATE TABLE documents (id uuid PRIMARY KEY, title text, content text);
ALTER TABLE documents REPLICA IDENTITY FULL;
ALTER TABLE documents ALTER content SET STORAGE EXTERNAL;

CREATE TABLE sessions (started timestamptz, device varchar(20), pages integer, PRIMARY KEY (started, device));
