"""The store in a bucket of S3 or what speaks its protocol, for several machines at once; see shared/store.py."""
