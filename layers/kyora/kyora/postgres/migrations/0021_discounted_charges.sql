-- An event's payload does not say how much a discount takes off: what is charged is unknown then.
CREATE OR REPLACE VIEW subscription_notice AS
SELECT s.id, c.workspace_id, s.status, s.period_end, s.cancel_at, s.payment_failed,
    CASE WHEN s.status = 'trialing' THEN s.trial_end END AS trial_end,
    s.plan_id, coalesce(p.name, s.plan_id) AS plan_name,
    s.plan_id IS NULL OR p.amount IS DISTINCT FROM 0 AS costs,
    coalesce(p.interval, 'month') AS interval, t.resume_at,
    CASE WHEN NOT jsonb_path_exists(coalesce(t.items, '[]'), '$[*] ? (@.discounted == true)')
        THEN greatest(0, cost.amount + c.balance) END AS charge, cost.currency,
    m.type AS method, m.brand, m.last4, m.exp_month, m.exp_year,
    b.access, b.access_until, b.subscription_id AS counting_id,
    greatest(0, cost.amount + c.balance) AS list_charge
FROM subscription s
JOIN billing_customer c ON c.id = s.customer_id
LEFT JOIN plan p ON p.id = s.plan_id
LEFT JOIN subscription_terms t ON t.subscription_id = s.id
LEFT JOIN workspace_billing b ON b.workspace_id = c.workspace_id
LEFT JOIN payment_method m ON NOT m.detached
    AND m.id = coalesce(s.default_payment_method_id, c.default_payment_method_id)
LEFT JOIN LATERAL (
    -- One unknown amount makes the sum unknown.
    SELECT CASE WHEN bool_and(item.amount IS NOT NULL)
            THEN sum(item.amount * coalesce(item.quantity, 1)) END AS amount,
        max(item.currency) AS currency
    FROM (
        SELECT (one->>'amount')::bigint AS amount, (one->>'quantity')::bigint AS quantity,
            one->>'currency' AS currency
        FROM jsonb_array_elements(t.items) AS one
        WHERE t.pending IS NULL OR t.pending_at > s.period_end
        UNION ALL
        SELECT coalesce(q.amount, o.amount), (one->>'quantity')::bigint,
            coalesce(q.currency, o.currency)
        FROM jsonb_array_elements(t.pending) AS one
        LEFT JOIN plan q ON q.price_id = one->>'price' AND q.active
        LEFT JOIN LATERAL (SELECT (i->>'amount')::bigint AS amount, i->>'currency' AS currency
            FROM jsonb_array_elements(t.items) AS i WHERE i->>'price' = one->>'price' LIMIT 1) o
            ON true
        WHERE t.pending_at <= s.period_end
    ) AS item
) AS cost ON true;
