-- Step 3. The span that submitted a job, as W3C's traceparent: its attempts belong to that trace, whoever makes them.

ALTER TABLE jobs ADD COLUMN traceparent TEXT;
