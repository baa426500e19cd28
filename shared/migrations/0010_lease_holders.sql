-- Whose lease it is. A lease ends with the database session of the process that holds it, and when its time is over at the latest.
ALTER TABLE due ADD COLUMN holder int;
