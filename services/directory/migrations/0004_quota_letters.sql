-- readable from: 1
-- What the owner of an account was told of its quota: 0 nothing, 1 nearly full, 2 full. Back to 0 once there is room.
ALTER TABLE accounts ADD COLUMN quota_told INTEGER NOT NULL DEFAULT 0;
