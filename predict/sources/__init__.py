"""Where pictures come from: files, folders, lists, tables, tars, here or in a bucket."""
