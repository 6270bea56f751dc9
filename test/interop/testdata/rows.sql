-- What the snapshot finds.
INSERT INTO kinds SELECT i, i % 2 = 0, i % 30000, i * 7919, i * 1099511627776, i,
	i * 1.5, i * 3.14159265358979, i * 1.001, i * 12345678901234567.0123456789, i * 0.1,
	date '2020-02-29' + i, timestamptz '2024-10-27 00:59:59.123456+00' + make_interval(hours => i), timestamp '2024-03-31 02:30:00.000001' + make_interval(mins => i), time '23:59:59.999999' - make_interval(mins => i),
	'naïve ' || i, 'code-' || i, 'fix' || i,
	decode(md5(i::text), 'hex'), md5(i::text)::uuid, json_build_object('i', i), jsonb_build_object('i', i, 'ö', ARRAY[1, 2]), (ARRAY['new', 'paid', 'shipped'])[1 + i % 3]::order_status,
	ARRAY['a', 'b,"c"', NULL, i::text], ARRAY[i, NULL, -i], make_interval(months => i, days => 3, secs => 4.5), timetz '12:34:56.789+02',
	inet '10.1.2.3/24', cidr '10.1.0.0/16', macaddr '08:00:2b:01:02:03', B'10101', B'1011', 12.34::money,
	xmlparse(CONTENT '<a>' || i || '</a>'), int4range(i, i + 10)
FROM generate_series(1, 50) AS i;
INSERT INTO kinds (id) VALUES (-1); -- nothing but nulls
INSERT INTO kinds (id, whole, small, big, price, day, moment, name, raw) VALUES
	(-2, -2147483648, -32768, -9223372036854775808, -999999999.999, '0001-01-01', '1066-10-14 09:00:00+00', '', ''),
	(-3, 2147483647, 32767, 9223372036854775807, 999999999.999, '9999-12-31', '2262-04-11 23:47:16.854775+00', E'tab\tquote"back\\slash', '\x00ff');

INSERT INTO items SELECT i / 5, i % 5, 'S18_' || i, 1 + i % 9, (i * 37 % 10000) / 100.0 FROM generate_series(0, 499) AS i;
INSERT INTO documents SELECT md5(i::text)::uuid, 'title ' || i, repeat(md5(i::text), 200) FROM generate_series(1, 20) AS i;
INSERT INTO sessions SELECT timestamptz '2026-11-01 00:00:00.000001+00' + make_interval(secs => i), 'phone', i FROM generate_series(1, 100) AS i;
