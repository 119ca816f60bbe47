"""The recipe that trains every component of ttm-tiny on the synthetic world."""
