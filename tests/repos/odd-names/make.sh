echo 1 > 'with space'
echo 2 > "$(printf 'new\nline')"
echo 3 > ./-dash
