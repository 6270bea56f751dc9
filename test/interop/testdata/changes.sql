-- What the stream brings: every kind of change.
INSERT INTO kinds SELECT 1000 + i, true, i, i, i, i, 0.1, 0.1, i / 8.0, -i / 3.0, 1e30 + i, '2026-11-21', now(), '2026-11-21 12:00', '00:00', repeat('x', i * 100), NULL, 'z' FROM generate_series(1, 30) AS i;
UPDATE kinds SET price = price + 0.001, moment = moment + interval '1 us', name = name || '!', body = '{"new": [true, null]}', state = 'shipped', tags = '{}' WHERE id > 0 AND id % 3 = 0;
UPDATE kinds SET flag = NULL, whole = NULL, price = NULL, day = NULL, raw = NULL, token = NULL WHERE id % 7 = 0;
DELETE FROM kinds WHERE id % 11 = 0;
UPDATE kinds SET id = id + 100000 WHERE id % 13 = 0; -- another key

BEGIN;
UPDATE items SET quantity = quantity + 1 WHERE line < 3;
DELETE FROM items WHERE order_number = 7;
INSERT INTO items VALUES (7, 0, 'again', 1, 1.00), (7, 1, 'and again', 2, 0.00);
UPDATE items SET order_number = 1000 + order_number WHERE order_number BETWEEN 20 AND 30;
SAVEPOINT a;
DELETE FROM items;
ROLLBACK TO a;
COMMIT;
BEGIN;
INSERT INTO items VALUES (5000, 1, 'never', 1, 1);
ROLLBACK;

UPDATE documents SET title = title || ' (second edition)'; -- the content is unchanged and stored apart
DELETE FROM documents WHERE id = md5('4')::uuid;
UPDATE documents SET id = md5('five')::uuid WHERE id = md5('5')::uuid;

UPDATE sessions SET pages = pages + 1;
UPDATE sessions SET started = started + interval '1 day' WHERE pages % 10 = 0;
DELETE FROM sessions WHERE pages % 10 = 1;
