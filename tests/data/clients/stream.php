<?php
$answer = file_get_contents($argv[1]);
echo $answer;
exit($answer === false ? 1 : 0);
