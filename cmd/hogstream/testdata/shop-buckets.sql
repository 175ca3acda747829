-- Who entered and left the shop's four buckets, when, computed from the clicks alone
-- (table clicks: n, user_id, name, at). A bucket is a union of spans of time, each with the
-- instant at which it begins and the first one at which it is over; what time ends is over
-- one microsecond after its last instant, for both edges of a window count.
WITH spans AS (
    SELECT 'buyers' AS bucket, user_id, min(at) AS begins, 'infinity'::timestamptz AS gone
    FROM clicks WHERE name = 'payment_done' GROUP BY user_id
    UNION ALL
    SELECT 'keen', user_id, at, tenth + interval '168 hours 1 microsecond'
    FROM (SELECT user_id, at, lag(at, 9) OVER (PARTITION BY user_id ORDER BY at, n) AS tenth FROM clicks WHERE name = 'catalog') AS views
    WHERE tenth >= at - interval '168 hours'
    UNION ALL
    SELECT 'cart-abandoned', c.user_id, c.at, least(c.at + interval '24 hours 1 microsecond', min(p.at))
    FROM clicks AS c LEFT JOIN clicks AS p ON p.user_id = c.user_id AND p.name = 'payment_done' AND p.at > c.at
    WHERE c.name = 'cart' GROUP BY c.user_id, c.n, c.at
    UNION ALL
    SELECT 'went-quiet', user_id, at + interval '336 hours 1 microsecond', coalesce(following, 'infinity')
    FROM (SELECT user_id, at, lead(at) OVER (PARTITION BY user_id ORDER BY at, n) AS following FROM clicks) AS steps
    WHERE following IS NULL OR following > at + interval '336 hours'
), marked AS (
    SELECT *, begins > coalesce(max(gone) OVER (PARTITION BY bucket, user_id ORDER BY begins, gone
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), '-infinity') AS new
    FROM spans
), numbered AS (
    SELECT *, count(*) FILTER (WHERE new) OVER (PARTITION BY bucket, user_id ORDER BY begins, gone) AS stay FROM marked
), stays AS (
    SELECT bucket, user_id, min(begins) AS entered, max(gone) AS left_at FROM numbered GROUP BY bucket, user_id, stay
), horizon AS (
    SELECT max(at) AS at FROM clicks
)
SELECT bucket, user_id, 'entered' AS transition, entered AS at FROM stays, horizon WHERE entered <= horizon.at
UNION ALL
SELECT bucket, user_id, 'left', left_at FROM stays, horizon WHERE left_at <= horizon.at
ORDER BY bucket, user_id, at, transition
