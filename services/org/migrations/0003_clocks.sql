SELECT shared_table('test_clocks', 'read by timers before they know the tenant: ids and intervals; written by its tenant alone');
