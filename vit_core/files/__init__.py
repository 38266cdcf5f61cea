"""Files: the containers of arrays that people have, each with its reader and its writer; folders; saving."""
