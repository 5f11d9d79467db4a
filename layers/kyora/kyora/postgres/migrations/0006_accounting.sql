-- What a business pays for a payment method, where that is not the default (kyora.accounting.fees).
-- Kyora's application writes these rows; this bundle reads them.
CREATE TABLE payment_method_fee (
    workspace_id text NOT NULL REFERENCES workspace (id),
    business_id text NOT NULL REFERENCES business (id),
    method text NOT NULL CHECK (method IN ('cash_on_delivery', 'bank_transfer', 'credit_card',
        'tamara', 'tabby', 'paypal')),
    enabled boolean NOT NULL DEFAULT true,
    percent numeric(7, 6) NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 1), -- 0.029: 2.9 %
    fixed numeric(18, 6) NOT NULL DEFAULT 0 CHECK (fixed >= 0), -- in the order's currency
    PRIMARY KEY (business_id, method)
);

-- The newest payment event of each order. One that is older finds it here and changes nothing,
-- also when the newest left no fee behind.
CREATE TABLE order_payment (
    workspace_id text NOT NULL,
    business_id text NOT NULL REFERENCES business (id),
    order_id text NOT NULL,
    event_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (business_id, order_id)
);

-- The fee of an order; one without a fee has no row. The amount is in the currency's minor unit.
CREATE TABLE transaction_fee (
    workspace_id text NOT NULL,
    business_id text NOT NULL,
    order_id text NOT NULL,
    method text NOT NULL,
    amount numeric(24, 0) NOT NULL CHECK (amount > 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    paid_at timestamptz NOT NULL,
    event_id text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (business_id, order_id),
    FOREIGN KEY (business_id, order_id) REFERENCES order_payment (business_id, order_id)
        ON DELETE CASCADE
);
CREATE INDEX transaction_fee_paid ON transaction_fee (business_id, paid_at);
